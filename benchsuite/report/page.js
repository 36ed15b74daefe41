// Read-out of the curve panels: point at one, or focus it and use the arrow keys. The page is complete without.
"use strict";

for (const panel of document.querySelectorAll("svg.panel[data-x]")) {
  const [x0, x1, left, right] = panel.dataset.x.split(" ").map(Number);
  const [y0, y1, bottom, top] = panel.dataset.y.split(" ").map(Number);
  const log = "log" in panel.dataset; // the axis then holds decimal logarithms
  const cursor = panel.querySelector(".cursor");
  const tip = panel.parentElement.querySelector(".tip");
  const choice = panel.closest(".how")?.querySelector("select"); // small panels have no upper axis
  const lines = [...panel.querySelectorAll("path.line")].map((path) => ({
    path,
    runs: path.getAttribute("d").split("M").slice(1).map((run) => run.split("L").map((p) => p.split(" ").map(Number))),
  }));
  let at = (left + right) / 2;

  const text = (value, digits) => value.toFixed(digits).replace("-", "−");
  const between = (nodes, x) => {
    for (let i = 1; i < nodes.length; i++) {
      const [a, b] = [nodes[i - 1], nodes[i]];
      if (a[0] <= x && x <= b[0]) return a[1] + ((b[1] - a[1]) * (x - a[0])) / (b[0] - a[0] || 1);
    }
    return null;
  };
  const entry = (name, value, classes) => {
    const row = document.createElement("p");
    const label = document.createElement("span");
    if (classes) label.append(Object.assign(document.createElement("i"), { className: classes }));
    label.append(name);
    row.append(label, value);
    return row;
  };

  const show = () => {
    const logSnr = x0 + ((at - left) / (right - left)) * (x1 - x0);
    const option = choice?.selectedOptions[0];
    const clock = option?.dataset.clock.split(" ").map((node) => node.split(":").map(Number));
    const time = clock ? between(clock, logSnr) : null;
    const loss = panel.dataset.loss;
    const rows = loss
      ? [entry(`${loss} ${text(logSnr, 3)}`, "")]
      : [entry(`log-SNR ${text(logSnr, 2)}`, time === null ? "" : `t/T ${text(time, 2)} (${option.text})`)];
    for (const { path, runs } of lines) {
      if (getComputedStyle(path).display === "none") continue;
      const y = runs.map((run) => between(run, at)).find((value) => value !== null);
      if (y === undefined) continue;
      const value = y0 + ((y - bottom) / (top - bottom)) * (y1 - y0);
      const said = log ? (10 ** value).toPrecision(3).replace("-", "−") : text(value, 3);
      rows.push(entry(path.dataset.name, said, path.getAttribute("class").replace(/series|line/g, "")));
    }
    cursor.setAttribute("x1", at);
    cursor.setAttribute("x2", at);
    tip.replaceChildren(...rows);
    tip.hidden = false;
    panel.classList.add("reading");
    const box = panel.getBoundingClientRect();
    const pixel = (at / panel.viewBox.baseVal.width) * box.width;
    const room = box.width - tip.offsetWidth;
    tip.style.left = `${Math.max(0, Math.min(room, pixel < box.width / 2 ? pixel + 14 : pixel - 14 - tip.offsetWidth))}px`;
    const above = box.top - panel.parentElement.getBoundingClientRect().top;
    tip.style.top = `${above + box.height * 0.55 - tip.offsetHeight / 2}px`;
  };
  const hide = () => {
    tip.hidden = true;
    panel.classList.remove("reading");
  };
  const move = (to) => {
    at = Math.max(left, Math.min(right, to));
    show();
  };

  panel.addEventListener("pointermove", (event) => {
    const box = panel.getBoundingClientRect();
    move(((event.clientX - box.left) / box.width) * panel.viewBox.baseVal.width);
  });
  panel.addEventListener("pointerleave", hide);
  panel.addEventListener("blur", hide);
  panel.addEventListener("focus", () => panel.matches(":focus-visible") && show());
  panel.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") hide();
    if (!step) return;
    event.preventDefault();
    move(at + (step * (right - left)) / (event.shiftKey ? 10 : 50));
  });
}
