// One column of the page: a title, what the current slice is, and the planes of one volume.

const OVERLAYS = ["uncertainty", "labels"];
// Grey in the planes; in 3D everything but air and lung is opaque, so that cuts are clean.
const GREY = { R: [0, 60, 255], G: [0, 60, 255], B: [0, 60, 255], A: [0, 200, 255], I: [0, 60, 255] };
const CROSSHAIR = 0.9; // pixels of the screen, in the plane that is shown smallest

class Panel {
  constructor(description, scene) {
    this.about = description;
    this.scene = scene;
    this.element = document.createElement("section");
    this.element.className = "panel";
    this.element.setAttribute("aria-label", description.title);
    this.element.innerHTML =
      '<header><h2></h2><span class="badge" role="status"></span></header>' +
      '<div class="stage"><canvas></canvas><div class="marks" aria-hidden="true"></div></div>';
    this.element.querySelector("h2").textContent = description.title;
    this.badge = this.element.querySelector(".badge");
    this.canvas = this.element.querySelector("canvas");
    this.canvas.setAttribute("aria-label", `${description.title}: planes and 3D`);
    this.layers = {};
    this.crosshair = true;
    this.cut = true;
  }

  async load() {
    const view = new niivue.Niivue({
      backColor: [0.027, 0.035, 0.047, 1],
      crosshairColor: [0.43, 0.77, 1, 0.75],
      crosshairWidth: 1,
      crosshairWidthUnit: "mm",
      crosshairGap: 12,
      show3Dcrosshair: false, // the cut says where it is
      isClipAllVolumes: true,
      isOrientationTextVisible: false,
      isCornerOrientationText: false,
      isOrientCube: false,
      isColorbar: false,
      sagittalNoseLeft: true,
      isSliceMM: true,
      isForceMouseClickToVoxelCenters: true,
      dragAndDropEnabled: false,
      clipPlaneHotKey: "",
      cycleClipPlaneHotKey: "",
      viewModeHotKey: "",
      clipPlaneColor: [0, 0, 0, 0],
      loadingText: "",
      logLevel: "error",
      dragMode: 9, // windowing with the right button
      tileMargin: 0,
      limitFrames4D: NaN,
    });
    this.view = view;
    this.drawOncePerFrame();
    await view.attachToCanvas(this.canvas);
    view.addColormap("mr", GREY);
    view.addVolume(await this.image(this.about.image, "mr", 1));
    for (const name of OVERLAYS) {
      const layer = this.about[name];
      if (!layer) continue;
      const overlay = await this.image(layer, name === "labels" ? "gray" : "inferno", 0);
      if (name === "labels") overlay.setColormapLabel(this.labelColours());
      this.layers[name] = view.volumes.length;
      view.addVolume(overlay);
    }
  }

  // However much changes at once, it is drawn once, when the browser draws.
  drawOncePerFrame() {
    const draw = this.view.drawScene.bind(this.view);
    let waiting = false;
    this.view.drawScene = () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => {
        waiting = false;
        this.cutAtCrosshair();
        draw();
        this.annotate();
      });
    };
  }

  async image(layer, colormap, opacity) {
    const image = await niivue.NVImage.loadFromUrl({
      url: await niftiOf(layer),
      name: "layer.nii",
      colormap,
      opacity,
      cal_min: layer.window[0],
      cal_max: layer.window[1],
    });
    return image;
  }

  labelColours() {
    const classes = this.scene.classes;
    const of = (k) => [0, ...classes.map((one) => one.colour[k])];
    return {
      R: of(0),
      G: of(1),
      B: of(2),
      A: [0, ...classes.map(() => 255)],
      I: [0, ...classes.map((one) => one.label)],
      labels: ["", ...classes.map((one) => one.name)],
    };
  }

  place(tiles) {
    this.view.setCustomLayout(tiles.map(([sliceType, ...position]) => ({ sliceType, position })));
    const marks = this.element.querySelector(".marks");
    marks.replaceChildren();
    this.tiles = tiles.map(([plane, left, top, width, height]) => {
      const tile = document.createElement("div");
      tile.className = "tile";
      const place = { left, top, width, height };
      for (const [side, share] of Object.entries(place)) tile.style[side] = `${share * 100}%`;
      tile.innerHTML = '<span class="plane"></span><div class="picture"></div>';
      tile.firstChild.textContent = PLANES[plane].name;
      for (const [side, letter] of Object.entries(edges(plane, this.scene.directions))) {
        const mark = document.createElement("span");
        mark.className = `edge ${side}`;
        mark.textContent = letter;
        tile.lastChild.append(mark);
      }
      marks.append(tile);
      return { plane, tile };
    });
    this.view.drawScene();
  }

  // Letters stand at the edges of the picture, which may be smaller than its tile.
  annotate() {
    const ratio = this.canvas.width / Math.max(this.canvas.clientWidth, 1);
    let finest = Infinity; // pixels a millimetre
    for (const { plane, tile } of this.tiles ?? []) {
      const slice = this.view.screenSlices.find((one) => one.axCorSag === plane);
      if (!slice || plane === RENDER) continue;
      const [left, top, width, height] = slice.leftTopWidthHeight.map((v) => v / ratio);
      Object.assign(tile.lastChild.style, {
        left: `${left - tile.offsetLeft}px`,
        top: `${top - tile.offsetTop}px`,
        width: `${width}px`,
        height: `${height}px`,
      });
      finest = Math.min(finest, slice.leftTopWidthHeight[2] / Math.abs(slice.fovMM[0]));
    }
    const wanted = this.crosshair && finest < Infinity ? (CROSSHAIR * ratio) / finest : 0;
    const { opts } = this.view;
    if (Math.abs(wanted - opts.crosshairWidth) <= 0.05 * wanted) return;
    opts.crosshairWidth = wanted;
    this.view.crosshairs3D = null; // NiiVue keeps its lines as long as the point is the same
    this.view.drawScene();
  }

  // The 3D block is cut open through the crosshair, along the long axis.
  cutAtCrosshair() {
    const depth = this.cut ? this.view.scene.crosshairPos[1] - 0.5 : 2;
    if (depth === this.depth) return;
    this.depth = depth;
    this.view.setClipPlane([depth, 180, 0]);
  }

  get point() {
    return [...this.view.frac2mm(this.view.scene.crosshairPos, 0, true)].slice(0, 3);
  }

  set point(mm) {
    this.view.scene.crosshairPos = this.view.mm2frac(mm, 0, true);
    this.view.drawScene();
  }

  set frame(number) {
    for (const volume of this.view.volumes) {
      volume.frame4D = Math.min(number, volume.nFrame4D - 1);
    }
    this.view.updateGLVolume();
  }

  show(name, opacity) {
    if (!(name in this.layers)) return;
    // Labels are outlined; their opacity is that of the area within.
    if (name === "labels") this.view.opts.atlasOutline = opacity > 0 ? 1 : 0;
    this.view.setOpacity(this.layers[name], opacity);
  }

  set window([low, high]) {
    const image = this.view.volumes[0];
    [image.cal_min, image.cal_max] = [low, high];
    this.view.updateGLVolume();
  }

  // The short-axis slice through a point: where it is and what it is.
  slice(mm) {
    const { toSlice, acquired, thick, origin, image } = this.about;
    const exact = toSlice[0] * mm[0] + toSlice[1] * mm[1] + toSlice[2] * mm[2] + toSlice[3];
    const shown = Math.min(Math.max(Math.round(exact), 0), image.slices.length - 1);
    const below = acquired.filter((centre) => centre - (thick - 1) / 2 <= shown).length;
    const real = below > 0 && shown <= acquired[below - 1] + (thick - 1) / 2;
    const number = Math.floor(shown / thick);
    const count = Math.ceil(image.slices.length / thick);
    return { shown, number, count, below, real, origin, of: acquired.length };
  }

  tell(mm) {
    const { number, count, below, real, origin, of, shown } = this.slice(mm);
    let [kind, text] = ["unknown", `slice ${number + 1} of ${count}, origin not recorded`];
    if (origin === "acquired") {
      const nearest = this.about.image.slices[shown] + 1;
      kind = "acquired";
      text = `${real ? "" : "within "}acquired slice ${nearest} of ${of}`;
    } else if (origin !== "unknown" && real) {
      [kind, text] = ["acquired", `acquired slice ${below} of ${of}`];
    } else if (origin !== "unknown") {
      kind = origin;
      const verb = origin === "generated" ? "generated" : "interpolated";
      text =
        below === 0 || below === of
          ? `${verb} beyond the acquired slices`
          : `${verb} between slices ${below} and ${below + 1}`;
    }
    this.badge.className = `badge ${kind}`;
    this.badge.textContent = text;
  }
}
