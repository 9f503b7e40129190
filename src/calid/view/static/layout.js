// Where the planes of a panel go, in fractions of its canvas.

const AXIAL = 0;
const CORONAL = 1;
const SAGITTAL = 2;
const RENDER = 4;

const LAYOUTS = {
  overview: (wide) => {
    if (wide > 1.15) {
      return [
        [AXIAL, 0, 0, 0.5, 0.6],
        [RENDER, 0.5, 0, 0.5, 0.6],
        [CORONAL, 0, 0.6, 0.5, 0.4],
        [SAGITTAL, 0.5, 0.6, 0.5, 0.4],
      ];
    }
    return [
      [AXIAL, 0, 0, 0.5, 0.36],
      [RENDER, 0.5, 0, 0.5, 0.36],
      [CORONAL, 0, 0.36, 1, 0.32],
      [SAGITTAL, 0, 0.68, 1, 0.32],
    ];
  },
  "short axis": () => [[AXIAL, 0, 0, 1, 1]],
  "long axis": (wide) =>
    wide > 1.6
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
  [CORONAL]: { name: "Long-axis cut, across", across: ["right", 0], upwards: ["towards", 0] },
  [SAGITTAL]: { name: "Long-axis cut, upright", across: ["up", 1], upwards: ["towards", 0] },
  [RENDER]: { name: "3D" },
};

// Letters at the left, right, top and bottom edge of a plane.
function edges(plane, directions) {
  const { across, upwards } = PLANES[plane];
  if (!across) return {};
  const [a, b] = [directions[across[0]], directions[upwards[0]]];
  return { left: a[1 - across[1]], right: a[across[1]], top: b[upwards[1]], bottom: b[1 - upwards[1]] };
}
