// Draws the page's figures in the current colour scheme: light, dark, or print.
(() => {
  "use strict";
  const root = document.documentElement;
  const config = {
    displaylogo: false, displayModeBar: "hover", showSendToCloud: false,
    modeBarButtonsToRemove: [
      "zoom2d", "pan2d", "select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d",
    ],
    toImageButtonOptions: { format: "svg" },
  };
  let style = getComputedStyle(root);
  const colour = (name) => style.getPropertyValue(name).trim();

  // Figures name colours as CSS variables, so that one document serves every colour scheme.
  const resolved = (item) => {
    if (typeof item === "string") return item.startsWith("var(--") ? colour(item.slice(4, -1)) : item;
    if (Array.isArray(item)) return item.map(resolved);
    if (item === null || typeof item !== "object") return item;
    return Object.fromEntries(Object.entries(item).map(([key, value]) => [key, resolved(value)]));
  };

  const template = () => {
    const axis = {
      gridcolor: colour("--grid"), linecolor: colour("--line"), zerolinecolor: colour("--line"),
      automargin: true, title: { standoff: 8, font: { size: 13 } },
    };
    const scale = [[0, colour("--surface")], [1, colour("--accent")]];
    return {
      layout: {
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
        font: { color: colour("--ink"), family: getComputedStyle(document.body).fontFamily, size: 13 },
        colorway: Array.from({ length: 10 }, (_, i) => colour(`--c${i}`)),
        xaxis: axis, yaxis: axis,
        hoverlabel: {
          bgcolor: colour("--surface"), bordercolor: colour("--line"),
          font: { color: colour("--ink") }, align: "left",
        },
        legend: { bgcolor: "rgba(0,0,0,0)" },
        modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("--muted"), activecolor: colour("--accent") },
        margin: { l: 56, r: 16, t: 44, b: 44 },
      },
      data: { heatmap: [{ colorscale: scale, colorbar: { outlinewidth: 0, thickness: 12 } }] },
    };
  };

  const pick = (values, rows) => rows.map((row) => values[row]);

  // The map's data is stored once; a view combines one set of positions with one colouring.
  const mapTraces = (map, view) => {
    const place = map.positions[view.position];
    const trace = (rows, more) => ({
      type: "scatter", mode: "markers", hoverinfo: "text",
      x: pick(place.x, rows), y: pick(place.y, rows), text: pick(map.hover, rows), ...more,
    });
    const marker = (more) => ({ size: map.size, opacity: 0.8, line: { width: 0 }, ...more });
    const colouring = map.colourings[view.colouring];
    const traces = [];
    if (colouring.groups) {
      for (const group of colouring.groups) {
        traces.push(trace(group.rows, {
          name: group.name, legendrank: group.rank, marker: marker({ color: group.color, symbol: group.symbol }),
        }));
      }
    } else {
      const all = [...colouring.values.keys()];
      const known = all.filter((row) => colouring.values[row] !== null);
      const unknown = all.filter((row) => colouring.values[row] === null);
      if (unknown.length) {
        traces.push(trace(unknown, { name: "unlabeled", marker: marker({ color: "var(--missing)" }) }));
      }
      traces.push(trace(known, {
        name: colouring.name, showlegend: false,
        marker: marker({
          color: pick(colouring.values, known), cmin: colouring.low, cmax: colouring.high, showscale: true,
          colorscale: [[0, "var(--low)"], [0.5, "var(--middle)"], [1, "var(--high)"]],
          colorbar: { title: { text: colouring.name }, thickness: 14, outlinewidth: 0, len: 0.8 },
        }),
      }));
    }
    if (place.centroids) {
      traces.push({
        type: "scatter", mode: "markers+text", name: "centroids", hoverinfo: "text", legendrank: 3000,
        x: place.centroids.x, y: place.centroids.y, text: map.centroid_names, hovertext: map.centroid_hover,
        textposition: "middle center", textfont: { color: "var(--ink)", size: 11, weight: 700 },
        marker: {
          size: 21, symbol: "circle", color: "var(--surface)", opacity: 0.85,
          line: { width: 1.5, color: "var(--ink)" },
        },
      });
    }
    return traces;
  };

  const mapLayout = (map, view) => {
    const place = map.positions[view.position];
    const axis = (title) => ({ title: { text: title }, showticklabels: false, zeroline: false });
    return { xaxis: axis(place.x_title), yaxis: axis(place.y_title), hovermode: "closest" };
  };

  // The description belongs to the drawing inside the canvas, because the canvas also holds buttons.
  const describe = ({ canvas, alternative }) => {
    canvas.removeAttribute("role");
    canvas.removeAttribute("aria-label");
    canvas.querySelectorAll(".main-svg").forEach((drawing, layer) => {
      drawing.setAttribute(...(layer ? ["aria-hidden", "true"] : ["role", "img"]));
      if (layer === 0) drawing.setAttribute("aria-label", alternative);
    });
    document.getElementById("js-plotly-tester")?.setAttribute("aria-hidden", "true");
  };

  const draw = (figure) => {
    const { spec, canvas, view } = figure;
    figure.width = canvas.clientWidth;
    const layout = {
      ...(spec.map ? mapLayout(spec.map, view) : spec.layout),
      width: canvas.clientWidth, height: canvas.clientHeight,
    };
    if (canvas.clientWidth < 620 && !layout.legend) layout.legend = { orientation: "h", y: -0.15 };
    const data = spec.map ? mapTraces(spec.map, view) : spec.data;
    const colours = { ...resolved(layout), template: template() };
    return Plotly.react(canvas, resolved(data), colours, config).then(() => describe(figure));
  };

  const figures = [...document.querySelectorAll("figure[data-plot]")].map((element) => ({
    spec: JSON.parse(element.querySelector("script[type='application/json']").textContent),
    canvas: element.querySelector(".canvas"),
    alternative: element.querySelector(".canvas").getAttribute("aria-label"),
    element,
    width: 0,
    view: { position: 0, colouring: 0 },
  }));

  for (const figure of figures) {
    for (const button of figure.element.querySelectorAll("button[data-choice]")) {
      button.addEventListener("click", () => {
        figure.view[button.dataset.choice] = Number(button.dataset.option);
        for (const other of button.parentElement.querySelectorAll("button")) {
          other.setAttribute("aria-pressed", String(other === button));
        }
        draw(figure);
      });
    }
  }

  const drawAll = () => {
    style = getComputedStyle(root);
    return Promise.all(figures.map(draw));
  };
  // plotly's own resizing does not keep the height.
  const observer = new ResizeObserver(() => {
    for (const figure of figures) {
      if (figure.width && figure.canvas.clientWidth !== figure.width) draw(figure);
    }
  });
  for (const figure of figures) observer.observe(figure.canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  let closed = [];
  addEventListener("beforeprint", () => {
    root.classList.add("printing");
    closed = [...document.querySelectorAll("details:not([open], [data-unprinted])")];
    for (const details of closed) details.open = true;
    drawAll();
  });
  addEventListener("afterprint", () => {
    root.classList.remove("printing");
    for (const details of closed) details.open = false;
    drawAll();
  });

  // One figure at a time, so that the page can be read and scrolled while they appear.
  (async () => {
    for (const figure of figures) {
      await draw(figure);
      await new Promise((next) => setTimeout(next, 0));
    }
    root.dataset.figures = String(figures.length);
  })();
})();
