"""Where voxels are: affines, resampling, slice profiles, crops."""
