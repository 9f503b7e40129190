// The page: panels side by side, one crosshair, one frame, and the controls.

const scene = JSON.parse(document.getElementById("scene").textContent);
const panels = scene.panels.map((description) => new Panel(description, scene));
const byId = (id) => document.getElementById(id);
// Whose slices the ruler shows: a reconstruction, if there is one.
const main =
  panels.find((panel) => panel.about.origin === "generated") ?? panels[panels.length - 1];
const frames = scene.frameTimes.length;
const SIZE_3D = 1.3;
const state = { frame: 0, playing: false, layout: "overview", turn: 0 };

// --- where we are -------------------------------------------------------------------------

function moved(mm) {
  for (const panel of panels) panel.tell(mm);
  const { number, count } = main.slice(mm);
  const ruler = byId("ruler");
  ruler.setAttribute("aria-valuenow", number + 1);
  ruler.setAttribute("aria-valuetext", `${number + 1} of ${count}, ${main.badge.textContent}`);
  ruler.querySelector(".current")?.classList.remove("current");
  ruler.children[number]?.classList.add("current");
  byId("slice-text").textContent = `${number + 1} / ${count}`;
}

function moveTo(mm) {
  for (const panel of panels) panel.point = mm;
  moved(panels[0].point);
}

function goToSlice(number) {
  const mm = main.point;
  const { count } = main.slice(mm);
  const { toSlice, step, thick } = main.about;
  const exact = toSlice[0] * mm[0] + toSlice[1] * mm[1] + toSlice[2] * mm[2] + toSlice[3];
  const wanted = Math.min(Math.max(number, 0), count - 1) * thick + Math.floor((thick - 1) / 2);
  moveTo(mm.map((value, k) => value + step[k] * (wanted - exact)));
}

function goToAcquired(direction) {
  const { number } = main.slice(main.point);
  const places = main.about.acquired.map((centre) => Math.floor(centre / main.about.thick));
  const next = direction > 0 ? places.find((p) => p > number) : places.findLast((p) => p < number);
  if (next !== undefined) goToSlice(next);
}

// --- the film -----------------------------------------------------------------------------

function setFrame(number) {
  state.frame = (number + frames) % frames;
  for (const panel of panels) panel.frame = state.frame;
  byId("frame").value = state.frame;
  const time = Math.round(1000 * (scene.frameTimes[state.frame] - scene.frameTimes[0]));
  byId("frame-text").textContent = `${state.frame + 1} / ${frames} · ${time} ms`;
}

function play(on) {
  state.playing = on && frames > 1;
  byId("play").classList.toggle("playing", state.playing);
  byId("play").setAttribute("aria-label", state.playing ? "Pause" : "Play");
  if (!state.playing) return;
  // A heart beats in its own time, as far as the header knows it.
  const step = (1000 * (scene.frameTimes[frames - 1] - scene.frameTimes[0])) / (frames - 1);
  const own = step >= 10 && step <= 250 ? step : 80;
  const turn = ++state.turn;
  const next = () => {
    if (!state.playing || turn !== state.turn) return;
    const begun = performance.now();
    setFrame(state.frame + 1);
    const wait = own / Number(byId("speed").value) - (performance.now() - begun);
    setTimeout(() => requestAnimationFrame(next), Math.max(wait, 0));
  };
  next();
}

// --- what is shown ------------------------------------------------------------------------

function setLayout(name) {
  state.layout = name;
  for (const button of byId("layouts").children) {
    button.setAttribute("aria-pressed", button.dataset.name === name);
  }
  for (const panel of panels) {
    const { clientWidth, clientHeight } = panel.canvas;
    panel.place(LAYOUTS[name]([clientWidth, clientHeight], panel.about.size));
  }
}

function setOverlay(name, on) {
  const box = byId(`overlay-${name}`);
  if (!box) return;
  box.checked = on;
  for (const panel of panels) panel.show(name, on ? Number(byId(`opacity-${name}`).value) : 0);
}

function toggle(what) {
  for (const panel of panels) {
    panel[what] = !panel[what];
    panel.view.drawScene();
  }
}

function zoom(by) {
  for (const { view } of panels) {
    const pan = view.scene.pan2Dxyzmm;
    const scale = Math.min(Math.max(pan[3] * by, 1), 8);
    // The crosshair keeps its place on the screen.
    const mm = view.frac2mm(view.scene.crosshairPos, 0, true);
    const shift = pan[3] - scale;
    view.setPan2Dxyzmm([
      ...[0, 1, 2].map((k) => (scale === 1 ? 0 : (pan[k] * pan[3] + shift * mm[k]) / scale)),
      scale,
    ]);
    view.setScale(SIZE_3D * scale);
  }
}

function reset() {
  for (const panel of panels) {
    panel.window = panel.about.image.window;
    panel.view.setPan2Dxyzmm([0, 0, 0, 1]);
    panel.view.setScale(SIZE_3D);
    panel.view.setRenderAzimuthElevation(200, 20);
  }
  moveTo(scene.centre);
  goToSlice(main.slice(scene.centre).number);
}

// --- controls -----------------------------------------------------------------------------

function buildLayouts() {
  Object.keys(LAYOUTS).forEach((name, k) => {
    const button = document.createElement("button");
    button.dataset.name = name;
    button.textContent = name[0].toUpperCase() + name.slice(1);
    button.title = `${button.textContent} (${k + 1})`;
    button.addEventListener("click", () => setLayout(name));
    byId("layouts").append(button);
  });
}

function buildOverlays() {
  for (const name of OVERLAYS.filter((one) => panels.some((panel) => panel.about[one]))) {
    const row = document.createElement("div");
    row.className = "overlay";
    row.innerHTML =
      '<label><input type="checkbox"><span></span></label>' +
      '<input type="range" min="0.1" max="1" step="0.05">';
    const [box, range] = row.querySelectorAll("input");
    range.value = name === "labels" ? 0.2 : 0.6;
    box.id = `overlay-${name}`;
    range.id = `opacity-${name}`;
    range.setAttribute("aria-label", `Opacity of ${name}`);
    row.querySelector("span").textContent = name[0].toUpperCase() + name.slice(1);
    row.title = `${name} on or off (${name[0].toUpperCase()})`;
    box.addEventListener("change", () => setOverlay(name, box.checked));
    range.addEventListener("input", () => setOverlay(name, true));
    if (name === "labels") {
      for (const { name: text, colour } of scene.classes) {
        const key = document.createElement("i");
        key.textContent = text;
        key.style.color = `rgb(${colour.join()})`;
        row.append(key);
      }
    }
    byId("overlays").append(row);
    setOverlay(name, name === "labels");
  }
}

function buildRuler() {
  const ruler = byId("ruler");
  const { count } = main.slice([0, 0, 0]);
  for (let number = 0; number < count; number++) {
    const shown = number * main.about.thick + Math.floor((main.about.thick - 1) / 2);
    const tick = document.createElement("i");
    const real = main.about.acquired.some((centre) => Math.abs(centre - shown) < 1);
    tick.className = real ? "acquired" : main.about.origin;
    ruler.append(tick);
  }
  ruler.setAttribute("aria-valuemin", 1);
  ruler.setAttribute("aria-valuemax", count);
  const scrub = (event) => {
    if (!(event.buttons & 1)) return;
    const { left, width } = ruler.getBoundingClientRect();
    goToSlice(Math.floor(((event.clientX - left) / width) * count));
  };
  ruler.addEventListener("pointerdown", (event) => {
    ruler.setPointerCapture(event.pointerId);
    scrub(event);
  });
  ruler.addEventListener("pointermove", scrub);
}

function summarise() {
  const { count, of } = main.slice([0, 0, 0]);
  const parts = [`${count} slices`];
  if (main.about.origin === "generated") parts.push(`${of} acquired, ${count - of} generated`);
  if (frames > 1) parts.push(`${frames} frames`);
  byId("summary").textContent = parts.join(" · ");
  const kinds = new Set(panels.map((panel) => panel.about.origin));
  if (main.about.acquired.length) kinds.add("acquired");
  for (const item of byId("legend").children) item.hidden = !kinds.has(item.className);
}

const KEYS = {
  ArrowUp: () => goToSlice(main.slice(main.point).number + 1),
  ArrowDown: () => goToSlice(main.slice(main.point).number - 1),
  ArrowRight: () => frames > 1 && setFrame(state.frame + 1),
  ArrowLeft: () => frames > 1 && setFrame(state.frame - 1),
  "[": () => goToAcquired(-1),
  "]": () => goToAcquired(1),
  " ": () => play(!state.playing),
  "+": () => zoom(1.25),
  "=": () => zoom(1.25),
  "-": () => zoom(0.8),
  c: () => toggle("cut"),
  x: () => toggle("crosshair"),
  r: reset,
  l: () => setOverlay("labels", !byId("overlay-labels")?.checked),
  u: () => setOverlay("uncertainty", !byId("overlay-uncertainty")?.checked),
  "?": () => byId("help").showModal(),
};
Object.keys(LAYOUTS).forEach((name, k) => (KEYS[k + 1] = () => setLayout(name)));

function onKey(event) {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
  // Sliders, lists and buttons keep the keys that work them.
  const own = event.target.closest("input[type=range], select, button, input");
  if (own && (key.startsWith("Arrow") || key === " " || key === "Enter")) return;
  if (!(key in KEYS)) return;
  event.preventDefault();
  event.stopPropagation(); // NiiVue has keys of its own
  KEYS[key]();
}

async function begin() {
  const place = byId("panels");
  place.style.setProperty("--columns", panels.length);
  for (const panel of panels) place.append(panel.element);
  buildLayouts();
  for (const panel of panels) await panel.load();
  byId("loading").remove();
  const alike = panels.every((p) => `${p.about.image.window}` === `${main.about.image.window}`);
  for (const panel of panels) {
    const others = panels.filter((other) => other !== panel).map((other) => other.view);
    panel.view.broadcastTo(others, { "2d": true, "3d": true, cal_min: alike, cal_max: alike });
    panel.view.onLocationChange = ({ mm }) => moved([...mm].slice(0, 3));
    panel.canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  }
  buildOverlays();
  buildRuler();
  summarise();
  setLayout("overview");
  reset();
  if (frames > 1) {
    byId("film").hidden = false;
    byId("frame").max = frames - 1;
    byId("frame").addEventListener("input", (event) => {
      play(false);
      setFrame(Number(event.target.value));
    });
    byId("play").addEventListener("click", () => play(!state.playing));
    setFrame(0);
  }
  byId("help-button").addEventListener("click", () => byId("help").showModal());
  window.addEventListener("keydown", onKey, true);
  new ResizeObserver(() => setLayout(state.layout)).observe(place);
  document.body.dataset.ready = "yes";
}

begin().catch((error) => {
  const note = byId("loading") ?? byId("panels").appendChild(document.createElement("p"));
  note.className = "failed";
  note.textContent = `This page cannot be shown: ${error.message}. It needs WebGL 2.`;
  document.body.dataset.ready = "failed";
  throw error;
});
