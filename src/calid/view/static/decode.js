// From what the page holds, or the server gives, to NIfTI files as NiiVue reads them.

async function bytesOf(link) {
  if (!link.startsWith("#")) {
    const answer = await fetch(link);
    if (!answer.ok) throw new Error(`the voxels cannot be fetched (${answer.status})`);
    return new Uint8Array(await answer.arrayBuffer());
  }
  const element = document.querySelector(link);
  const text = element.textContent;
  element.remove(); // films are large: one copy is enough
  const bytes = new Uint8Array((text.length / 4) * 3);
  const piece = 4 << 18; // whole groups of four characters, so that pieces can be joined
  let end = 0;
  for (let start = 0; start < text.length; start += piece) {
    const part = atob(text.slice(start, start + piece));
    for (let i = 0; i < part.length; i++) bytes[end + i] = part.charCodeAt(i);
    end += part.length;
  }
  return bytes.subarray(0, end);
}

async function unzipped(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

// The header is of the shown grid; slices that are shown several times are stored once.
async function niftiOf(layer) {
  const packed = await unzipped(await bytesOf(layer.link));
  const header = new DataView(packed);
  const [width, height] = [header.getInt16(42, true), header.getInt16(44, true)];
  const frames = header.getInt16(40, true) > 3 ? header.getInt16(48, true) : 1;
  const start = header.getFloat32(108, true);
  const size = (width * height * header.getInt16(72, true)) / 8;
  if (layer.stored === layer.slices.length) return packed;
  const whole = new Uint8Array(start + size * layer.slices.length * frames);
  whole.set(new Uint8Array(packed, 0, start));
  let end = start;
  for (let frame = 0; frame < frames; frame++) {
    for (const slice of layer.slices) {
      whole.set(new Uint8Array(packed, start + size * (frame * layer.stored + slice), size), end);
      end += size;
    }
  }
  return whole.buffer;
}
