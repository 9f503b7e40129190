// Where the planes of a panel go, in fractions of its canvas.

const AXIAL = 0;
const CORONAL = 1;
const SAGITTAL = 2;
const RENDER = 4;

// Each takes the canvas (width, height) in pixels and the volume (right, up, towards) in mm.
const LAYOUTS = {
  overview: ([wide, tall], [right, up, towards]) => {
    const columns = wide > 1.15 * tall ? 2 : 1;
    // Long-axis cuts get the height that they fill; the short axis and 3D get the rest.
    const cut = (wide / columns / Math.max(right, up)) * towards;
    const low = Math.min(columns === 2 ? 0.4 : 0.32, cut / tall);
    const top = 1 - (columns === 2 ? low : 2 * low);
    const cuts =
      columns === 2
        ? [
            [CORONAL, 0, top, 0.5, low],
            [SAGITTAL, 0.5, top, 0.5, low],
          ]
        : [
            [CORONAL, 0, top, 1, low],
            [SAGITTAL, 0, top + low, 1, low],
          ];
    return [[AXIAL, 0, 0, 0.5, top], [RENDER, 0.5, 0, 0.5, top], ...cuts];
  },
  "short axis": () => [[AXIAL, 0, 0, 1, 1]],
  "long axis": ([wide, tall]) =>
    wide > 3 * tall
      ? [
          [CORONAL, 0, 0, 0.5, 1],
          [SAGITTAL, 0.5, 0, 0.5, 1],
        ]
      : [
          [CORONAL, 0, 0, 1, 0.5],
          [SAGITTAL, 0, 0.5, 1, 0.5],
        ],
  "3D": () => [[RENDER, 0, 0, 1, 1]],
};

const PLANES = {
  [AXIAL]: { name: "Short axis", across: ["right", 0], upwards: ["up", 0] },
  [CORONAL]: { name: "Long-axis cut, horizontal", across: ["right", 0], upwards: ["towards", 0] },
  [SAGITTAL]: { name: "Long-axis cut, vertical", across: ["up", 1], upwards: ["towards", 0] },
  [RENDER]: { name: "3D" },
};

// Letters at the left, right, top and bottom edge of a plane.
function edges(plane, directions) {
  const { across, upwards } = PLANES[plane];
  if (!across) return {};
  const [a, b] = [directions[across[0]], directions[upwards[0]]];
  return { left: a[1 - across[1]], right: a[across[1]], top: b[upwards[1]], bottom: b[1 - upwards[1]] };
}
