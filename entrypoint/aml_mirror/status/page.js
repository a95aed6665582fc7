"use strict";
(() => {
  const PAGE = 100;
  const SVG = "http://www.w3.org/2000/svg";
  const STATES = [["mirrored", "✓"], ["begun", "◐"], ["missing", "○"], ["failed", "✕"], ["skipped", "–"]];
  const MARKS = new Map(STATES);
  const RANK = new Map(STATES.map(([name], place) => [name, place]));
  const byId = (id) => document.getElementById(id);
  const integers = new Intl.NumberFormat("en");
  const words = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  const short = (value) => Math.abs(value) >= 1e6 || (value && Math.abs(value) < 1e-3)
    ? value.toExponential(2) : String(Number(value.toPrecision(4)));

  // A row: what Python wrote, in the order of aml_mirror/status/page.py.
  const runs = JSON.parse(byId("data").textContent).map(
    ([name, state, framework, model, versions, checkpoint, step, written, why, curve], place) => ({
      name, state, framework, model, versions, checkpoint, step, written, why, curve, place,
      date: written ? new Date(written * 1000).toISOString().slice(0, 16).split("T") : null,
      text: [name, state, framework, model, ...versions.map((one) => one[1]), checkpoint, why, curve ? curve[0] : ""]
        .join(" ").toLowerCase(),
    }));

  const make = (tag, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };
  const draw = (tag, attributes) => {
    const made = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };

  const spark = ([name, values, lastStep, last]) => {
    const width = 110, height = 26, edge = 3;
    const finite = values.filter(Number.isFinite);
    const low = Math.min(...finite), high = Math.max(...finite);
    const at = (value, place) => [
      edge + (width - 2 * edge) * (values.length > 1 ? place / (values.length - 1) : 1),
      height - edge - (height - 2 * edge) * (high > low ? (value - low) / (high - low) : 0.5),
    ].map((one) => one.toFixed(1)).join(" ");
    const points = values.map((value, place) => [value, place]).filter(([value]) => Number.isFinite(value));
    const picture = draw("svg", {
      class: "spark", width, height, viewBox: `0 0 ${width} ${height}`, role: "img",
      "aria-label": `${name} from ${short(finite[0])} to ${short(last)}, lowest ${short(low)}, highest ${short(high)}, `
        + `last step ${integers.format(lastStep)}`,
    });
    picture.append(
      draw("polyline", {
        points: points.map(([value, place]) => at(value, place)).join(" "), fill: "none", stroke: "currentColor",
        "stroke-width": 1.5, "stroke-linejoin": "round", "stroke-linecap": "round",
      }));
    const [x, y] = at(...points[points.length - 1]).split(" ");
    picture.append(draw("circle", { cx: x, cy: y, r: 2.2, fill: "currentColor" }));
    return [picture, short(last), make("small", { textContent: name, title: name })];
  };

  const name = (text) => [make("bdi", { textContent: text })];
  const badge = (state) => make("span", { className: `state ${state}` },
    make("span", { textContent: MARKS.get(state), ariaHidden: "true" }), state);
  const version = (versions, model) => versions.length
    ? [make("bdi", { textContent: model }), make("small", { textContent: versions.slice(0, 5).map((one) =>
      `version ${one[0]}${one[2]}`).join(", ") + (versions.length > 5 ? ` and ${versions.length - 5} more` : "") })]
    : [make("bdi", { textContent: model })];

  const COLUMNS = [
    { name: "Run", key: (run) => run.name, cell: (run) => name(run.name) },
    { name: "State", key: (run) => RANK.get(run.state), cell: (run) => [badge(run.state)] },
    { name: "Framework", key: (run) => run.framework, cell: (run) => [run.framework] },
    { name: "Model", key: (run) => `${run.model} ${run.versions.map((one) => one[0]).join(" ")}`.trim(),
      cell: (run) => version(run.versions, run.model), kind: "version" },
    { name: "Checkpoint", key: (run) => run.checkpoint, cell: (run) => name(run.checkpoint),
      kind: "checkpoint" },
    { name: "Step", key: (run) => run.step, cell: (run) => [run.step === null ? "" : integers.format(run.step)],
      kind: "number" },
    { name: "Last written", key: (run) => run.written || null, kind: "date",
      cell: (run) => (run.date ? [run.date[0], make("small", { textContent: `${run.date[1]} UTC` })] : []) },
    { name: "Curve", key: (run) => (run.curve ? run.curve[3] : null), cell: (run) => (run.curve ? spark(run.curve) : []),
      kind: "curve" },
    { name: "What is missing", key: (run) => run.why, cell: (run) => [run.why], kind: "why" },
  ];

  let wanted = "", sorted = 0, descending = false, first = 0, shown = runs;

  const compare = (one, other) => {
    const key = COLUMNS[sorted].key, a = key(one), b = key(other);
    // What is not known comes last, whichever way the table is sorted.
    const lacking = (a === null || a === "") - (b === null || b === "");
    if (lacking) return lacking;
    const order = typeof a === "string" ? words.compare(a, b) : a - b;
    return (descending ? -order : order) || one.place - other.place;
  };

  const select = () => {
    const asked = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    shown = runs.filter((run) => (!wanted || run.state === wanted) && asked.every((word) => run.text.includes(word)));
    shown.sort(compare);
    first = 0;
    show();
  };

  const show = () => {
    const page = shown.slice(first, first + PAGE);
    byId("rows").replaceChildren(...page.map((run) => make("tr", {}, ...COLUMNS.map((column, place) =>
      make(place ? "td" : "th", { className: column.kind || "", ...(place ? {} : { scope: "row" }) },
        ...column.cell(run))))));
    const all = shown.length === runs.length ? "" : `, of ${integers.format(runs.length)} in all`;
    byId("shown").textContent = page.length
      ? `Runs ${integers.format(first + 1)} to ${integers.format(first + page.length)} of `
        + `${integers.format(shown.length)}${all}`
      : `No run matches${all}`;
    byId("page").textContent =
      `Page ${integers.format(Math.floor(first / PAGE) + 1)} of ${integers.format(Math.max(1, Math.ceil(shown.length / PAGE)))}`;
    byId("previous").disabled = first === 0;
    byId("next").disabled = first + PAGE >= shown.length;
    byId("pages").hidden = shown.length <= PAGE;
    document.querySelectorAll("#head th").forEach((head, place) => {
      if (place === sorted) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
  };

  const turn = (pages) => {
    first = Math.max(0, first + pages * PAGE);
    show();
    byId("scroll").scrollIntoView({ block: "start" });
  };

  COLUMNS.forEach((column, place) => {
    const button = make("button", { type: "button", textContent: column.name });
    button.addEventListener("click", () => {
      descending = place === sorted && !descending;
      sorted = place;
      select();
    });
    byId("head").append(make("th", { scope: "col", className: column.kind || "" }, button));
  });

  const counts = new Map();
  for (const run of runs) counts.set(run.state, (counts.get(run.state) || 0) + 1);
  const state = (name, mark, count) => {
    const button = make("button", { type: "button", ariaPressed: String(name === wanted) });
    if (mark) button.append(make("span", { textContent: `${mark} `, ariaHidden: "true" }));
    button.append(`${name || "all"} `, make("b", { textContent: integers.format(count) }));
    button.addEventListener("click", () => {
      wanted = name;
      byId("states").querySelectorAll("button").forEach((one) => { one.ariaPressed = String(one === button); });
      select();
    });
    byId("states").append(button);
  };
  state("", "", runs.length);
  const bar = draw("svg", { viewBox: "0 0 1000 6", preserveAspectRatio: "none" });
  let from = 0;
  for (const [name, mark] of STATES) {
    const count = counts.get(name) || 0;
    if (!count) continue;
    state(name, mark, count);
    const width = (1000 * count) / runs.length;
    bar.append(draw("rect", { class: `bar-${name}`, x: from, y: 0, width, height: 6 }));
    from += width;
  }
  byId("share").append(bar);

  byId("search").addEventListener("input", select);
  byId("previous").addEventListener("click", () => turn(-1));
  byId("next").addEventListener("click", () => turn(1));
  select();
})();
