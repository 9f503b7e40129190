// The viewer reads NIfTI only: Zarr and its two compressors are more than half of the bundle.
module.exports = {};
