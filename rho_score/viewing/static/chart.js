// The distribution of the scores as bars, with the kept side tinted.

export function draw(canvas, chart, threshold) {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const style = getComputedStyle(canvas);
  const colour = (name) => style.getPropertyValue(name);
  const bottom = height - 16;
  const [low, high] = [chart.edges[0], chart.edges[chart.edges.length - 1]];
  const x = (value) => ((value - low) / (high - low)) * width;
  const most = Math.max(1, ...chart.counts);
  const cut = threshold === null ? null : Math.min(Math.max(x(threshold), 0), width);
  chart.counts.forEach((count, i) => {
    const [left, right] = [x(chart.edges[i]), x(chart.edges[i + 1])];
    const kept = threshold !== null && (chart.high ? chart.edges[i] >= threshold : chart.edges[i + 1] <= threshold);
    context.fillStyle = colour(kept ? "--kept" : "--bars");
    const size = count ? Math.max(1, (count / most) * (bottom - 4)) : 0;
    context.fillRect(left, bottom - size, Math.max(right - left - 0.5, 0.5), size);
  });
  if (cut !== null) {
    context.fillStyle = colour("--kept-wash");
    if (chart.high) context.fillRect(cut, 0, width - cut, bottom);
    else context.fillRect(0, 0, cut, bottom);
    context.fillStyle = colour("--ink");
    context.fillRect(Math.min(cut, width - 1.5), 0, 1.5, bottom);
  }
  context.fillStyle = colour("--dim");
  context.font = "11px system-ui, sans-serif";
  const label = (value, align, at) => {
    context.textAlign = align;
    context.fillText(value, at, height - 3);
  };
  label(Number(low.toPrecision(3)), "left", 0);
  label(Number(((low + high) / 2).toPrecision(3)), "center", width / 2);
  label(Number(high.toPrecision(3)), "right", width);
}
