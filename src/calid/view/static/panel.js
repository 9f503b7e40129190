// One column of the page: a title, what the current slice is, and the planes of one volume.

const OVERLAYS = ["uncertainty", "labels"];

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
  }

  async load() {
    const view = new niivue.Niivue({
      backColor: [0.027, 0.035, 0.047, 1],
      crosshairColor: [0.43, 0.77, 1, 0.75],
      crosshairWidth: 1,
      crosshairGap: 12,
      show3Dcrosshair: true,
      isOrientationTextVisible: false,
      isCornerOrientationText: false,
      isOrientCube: false,
      isColorbar: false,
      sagittalNoseLeft: true,
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
    await view.attachToCanvas(this.canvas, true);
    view.addVolume(await this.image(this.about.image, "gray", 1));
    this.layers.image = 0;
    for (const name of OVERLAYS) {
      const layer = this.about[name];
      if (!layer) continue;
      const overlay = await this.image(layer, name === "labels" ? "gray" : "inferno", 0.5);
      if (name === "labels") overlay.setColormapLabel(this.labelColours());
      this.layers[name] = view.volumes.length;
      view.addVolume(overlay);
    }
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
    for (const [plane, left, top, width, height] of tiles) {
      const tile = document.createElement("div");
      tile.className = "tile";
      Object.assign(tile.style, {
        left: `${left * 100}%`,
        top: `${top * 100}%`,
        width: `${width * 100}%`,
        height: `${height * 100}%`,
      });
      const name = document.createElement("span");
      name.className = "plane";
      name.textContent = PLANES[plane].name;
      tile.append(name);
      for (const [side, letter] of Object.entries(edges(plane, this.scene.directions))) {
        const mark = document.createElement("span");
        mark.className = `edge ${side}`;
        mark.textContent = letter;
        tile.append(mark);
      }
      marks.append(tile);
    }
    this.view.drawScene();
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
    if (name in this.layers) this.view.setOpacity(this.layers[name], opacity);
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
      text = real ? `acquired slice ${nearest} of ${of}` : `acquired slice ${nearest}, as thick as its gap`;
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
