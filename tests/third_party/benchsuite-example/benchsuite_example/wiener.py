"""The best linear denoiser: a Gaussian with the mean of each class and one covariance, fitted to the data set."""

from benchsuite import DiffusionModel, UsageError


class Wiener(DiffusionModel):
    """D(x; sigma) = m + S (S + sigma² I)⁻¹ (x - m), with m the mean of the asked class, or of everything."""

    name = "wiener"
    family = "linear"
    paper = "ISBN 978-0-262-73005-1"  # Wiener 1949
    sigma_range = (1e-3, 1e3)

    def bind(self, dataset, codec=None):
        train = dataset.split("train")
        self.shape, self.factors = dataset.shape, dataset.factors[:1]
        self.images, self.labels = train.images.flatten(1).double(), train.labels[:, 0]

    def load(self, device="cpu", dtype="float32"):
        import torch

        classes = [self.images[self.labels == k].mean(0) for k in range(self.factors[0].size)]
        self.means = torch.stack([*classes, self.images.mean(0)]).to(device)  # (K + 1, D); -1 = null is the last
        self.variance, self.basis = torch.linalg.eigh(torch.cov(self.images.T).to(device))

    def denoise(self, x, sigma, labels=None):
        classes = self.factors[0].size
        if labels is not None and not ((labels >= -1) & (labels < classes)).all():
            found = labels.unique().tolist()
            raise UsageError(f"{self.factors[0].name} must be -1 (any) or 0 … {classes - 1}, got {found}")
        centre = self.means[-1] if labels is None else self.means[labels[:, 0]]
        gain = self.variance / (self.variance + sigma.double()[:, None] ** 2)
        deviation = ((x.flatten(1) - centre) @ self.basis * gain) @ self.basis.T
        return (centre + deviation).reshape(x.shape).to(x.dtype)

    def fingerprint(self):
        from benchsuite import fingerprint_state

        return fingerprint_state({"means": self.means, "variance": self.variance, "basis": self.basis})
