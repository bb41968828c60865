"use strict";
// Three planes of image and mask by NiiVue. Whoever has no WebGL 2 keeps the slices that the page shows as pictures.
// openVolume(root, source) takes the elements of viewer.html.j2 in root; source says where the volumes are.
globalThis.openVolume = (root, source) => {
  const find = (id) => root.querySelector(`#${id}`);
  const canvas = find("volume"), told = find("volume-told"), controls = find("volume-controls");
  const slice = find("slice"), sliceTold = find("slice-told"), centre = find("centre"), width = find("width");
  const outline = find("outline"), opacity = find("opacity");
  const COLOUR = [255, 176, 0];
  const LARGEST_ZOOM = 20;

  // NIfTI's affine and its inverse: voxel of what is shown as slices to mm and back
  const place = (volume) => {
    const a = volume.hdr.affine, m = [0, 1, 2].map((row) => a[row].slice(0, 3)), t = [0, 1, 2].map((row) => a[row][3]);
    const det = m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1]) - m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0])
      + m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0]);
    const cofactor = (r, c) => {
      const [r1, r2] = [0, 1, 2].filter((i) => i !== r), [c1, c2] = [0, 1, 2].filter((i) => i !== c);
      return ((r + c) % 2 ? -1 : 1) * (m[r1][c1] * m[r2][c2] - m[r1][c2] * m[r2][c1]);
    };
    return {
      mm: (voxel) => t.map((shift, row) => shift + m[row][0] * voxel[0] + m[row][1] * voxel[1] + m[row][2] * voxel[2]),
      voxel: (mm) => [0, 1, 2].map((row) => [0, 1, 2].reduce((sum, c) => sum + cofactor(c, row) * (mm[c] - t[c]), 0) / det),
    };
  };

  const edgeOf = (mask, [nx, ny, nz]) => {
    const edge = new Uint8Array(mask.length);
    for (let z = 0; z < nz; z += 1) for (let y = 0; y < ny; y += 1) for (let x = 0; x < nx; x += 1) {
      const at = x + nx * (y + ny * z);
      if (mask[at] && (x === 0 || y === 0 || x === nx - 1 || y === ny - 1
        || !mask[at - 1] || !mask[at + 1] || !mask[at - nx] || !mask[at + nx])) edge[at] = 1;
    }
    return edge;
  };

  // the voxel of the structure that is nearest to its centre on the slice where it is largest
  const middleOf = (mask, [nx, ny, nz]) => {
    let best = -1, most = 0;
    for (let z = 0; z < nz; z += 1) {
      let area = 0;
      for (let at = nx * ny * z; at < nx * ny * (z + 1); at += 1) area += mask[at] ? 1 : 0;
      if (area > most) [best, most] = [z, area];
    }
    if (best < 0) return null;
    const inside = [];
    for (let y = 0; y < ny; y += 1) for (let x = 0; x < nx; x += 1) if (mask[x + nx * (y + ny * best)]) inside.push([x, y]);
    const [cx, cy] = [0, 1].map((axis) => inside.reduce((sum, one) => sum + one[axis], 0) / inside.length);
    inside.sort((one, other) => Math.hypot(one[0] - cx, one[1] - cy) - Math.hypot(other[0] - cx, other[1] - cy));
    return [...inside[0], best];
  };

  const start = async () => {
    const { Niivue, NVImage, DRAG_MODE } = globalThis.niivue;
    const viewer = new Niivue({
      backColor: [0, 0, 0, 1], crosshairColor: [0.34, 0.71, 0.91, 0.8], crosshairWidth: 1, crosshairGap: 6, show3Dcrosshair: false,
      isColorbar: false, isOrientCube: false, multiplanarShowRender: 0, multiplanarForceRender: false, dragAndDropEnabled: false,
      isRadiologicalConvention: true, sagittalNoseLeft: true, logLevel: "error", loadingText: "", dragMode: DRAG_MODE.none, textHeight: 0.04,
      mouseEventConfig: { leftButton: { primary: DRAG_MODE.crosshair, withShift: DRAG_MODE.pan }, rightButton: DRAG_MODE.pan, centerButton: DRAG_MODE.pan },
      touchEventConfig: { singleTouch: DRAG_MODE.crosshair, doubleTouch: DRAG_MODE.crosshair },
      clipPlaneHotKey: "", viewModeHotKey: "", cycleClipPlaneHotKey: "",
    });
    viewer.addColormap("structure", { R: [0, COLOUR[0]], G: [0, COLOUR[1]], B: [0, COLOUR[2]], A: [0, 255], I: [0, 255] });
    canvas.hidden = false;
    await viewer.attachToCanvas(canvas);
    const [low, high] = [Number(centre.value) - Number(width.value) / 2, Number(centre.value) + Number(width.value) / 2];
    const load = async (name, options) => (typeof source[name] === "string"
      ? NVImage.loadFromUrl({ url: source[name], name: `${name}.nii.gz`, ...options })
      : NVImage.loadFromFile({ file: source[name], name: `${name}.nii.gz`, ...options }));
    const image = await load("image", { colormap: "gray", cal_min: low, cal_max: high });
    const mask = await load("mask", { colormap: "structure", cal_min: 0, cal_max: 1, opacity: Number(opacity.value) / 100 });
    const size = [image.hdr.dims[1], image.hdr.dims[2], image.hdr.dims[3]], at = place(image), middle = middleOf(mask.img, size);
    const edge = mask.clone();
    edge.img = edgeOf(mask.img, size);
    edge.name = "outline.nii.gz";
    edge.opacity = outline.checked ? 1 : 0;
    // at once: added one by one, each would be drawn anew with those before it
    viewer.volumes = [image, mask, edge];
    [viewer.back, viewer.overlays] = [image, [mask, edge]];
    viewer.updateGLVolume();
    viewer.setInterpolation(false);
    viewer.setSliceType(3);

    let voxel = [size[0] / 2, size[1] / 2, Number(slice.value)].map(Math.round);
    const shown = () => {
      canvas.dataset.voxel = voxel.join(" ");
      canvas.dataset.zoom = viewer.scene.pan2Dxyzmm[3].toFixed(2);
      canvas.dataset.pan = [...viewer.scene.pan2Dxyzmm].slice(0, 3).map((shift) => shift.toFixed(1)).join(" ");
      slice.value = voxel[2];
      sliceTold.textContent = `${voxel[2] + 1} of ${size[2]}`;
    };
    const go = (to) => {
      voxel = to.map((one, axis) => Math.min(Math.max(Math.round(one), 0), size[axis] - 1));
      viewer.scene.crosshairPos = viewer.mm2frac(at.mm(voxel));
      viewer.createOnLocationChange();
      viewer.drawScene();
      shown();
    };
    viewer.onLocationChange = (location) => {
      voxel = at.voxel([...location.mm].slice(0, 3)).map((one, axis) => Math.min(Math.max(Math.round(one), 0), size[axis] - 1));
      const value = image.img[voxel[0] + size[0] * (voxel[1] + size[1] * voxel[2])] * (image.hdr.scl_slope || 1) + (image.hdr.scl_inter || 0);
      told.textContent = `Column ${voxel[0] + 1}, row ${voxel[1] + 1}, slice ${voxel[2] + 1}: ${Number(value.toPrecision(5))}${source.unit ? ` ${source.unit}` : ""}`;
      shown();
    };
    const zoom = (factor, shift = [0, 0, 0]) => {
      const pan = viewer.scene.pan2Dxyzmm;
      const next = factor === 0 ? 1 : Math.min(Math.max(pan[3] * factor, 1), LARGEST_ZOOM);
      const cross = viewer.frac2mm(viewer.scene.crosshairPos);
      // the crosshair stays where it is; the whole image is not shifted
      const moved = [0, 1, 2].map((axis) => (next === 1 ? 0 : pan[axis] + (pan[3] - next) * cross[axis] + shift[axis]));
      viewer.setPan2Dxyzmm([...moved, next]);
      shown();
    };
    const window_ = () => {
      const [middleValue, range] = [Number(centre.value), Number(width.value)];
      if (!Number.isFinite(middleValue) || !(range > 0)) return;
      image.cal_min = middleValue - range / 2;
      image.cal_max = middleValue + range / 2;
      viewer.updateGLVolume();
    };

    root.addEventListener("input", (event) => {
      if (event.target === slice) go([voxel[0], voxel[1], Number(slice.value)]);
      if (event.target === centre || event.target === width) window_();
      if (event.target === outline) viewer.setOpacity(2, outline.checked ? 1 : 0);
      if (event.target === opacity) {
        find("opacity-told").textContent = `${opacity.value} %`;
        viewer.setOpacity(1, Number(opacity.value) / 100);
      }
    });
    root.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      if (button.dataset.centre) { centre.value = button.dataset.centre; width.value = button.dataset.width; window_(); }
      if (button.dataset.zoom) zoom(Number(button.dataset.zoom));
      if (button.id === "jump" && middle) go(middle);
      if (button.dataset.plane) {
        for (const other of controls.querySelectorAll("[data-plane]")) other.setAttribute("aria-pressed", String(other === button));
        viewer.setSliceType(Number(button.dataset.plane));
      }
    });
    // NiiVue's own keys depend on where the mouse is; these work wherever it is
    const steps = { ArrowLeft: [-1, 0, 0], ArrowRight: [1, 0, 0], ArrowUp: [0, -1, 0], ArrowDown: [0, 1, 0], PageUp: [0, 0, 1], PageDown: [0, 0, -1] };
    const keys = (event) => {
      if (event.target !== canvas) return;
      event.stopPropagation();
      if (event.type !== "keydown") return;
      if (steps[event.key]) go(voxel.map((one, axis) => one + steps[event.key][axis]));
      else if (event.key === "+" || event.key === "=") zoom(1.25);
      else if (event.key === "-") zoom(0.8);
      else return;
      event.preventDefault();
    };
    canvas.parentElement.addEventListener("keydown", keys, true);
    canvas.parentElement.addEventListener("keyup", keys, true);
    canvas.parentElement.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      event.stopPropagation();
      zoom(event.deltaY < 0 ? 1.25 : 0.8);
    }, { capture: true, passive: false });
    let fingers = null;
    const touch = (event) => {
      if (event.touches.length !== 2) { fingers = null; return; }
      event.preventDefault();
      event.stopPropagation();
      const [one, other] = event.touches;
      const now = { apart: Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY), x: (one.clientX + other.clientX) / 2, y: (one.clientY + other.clientY) / 2 };
      if (fingers) {
        const mm = (Math.abs(at.mm(size)[0] - at.mm([0, 0, 0])[0]) / canvas.clientWidth) * viewer.scene.pan2Dxyzmm[3];
        zoom(now.apart / fingers.apart, [-(now.x - fingers.x) * mm, 0, -(now.y - fingers.y) * mm]);
      }
      fingers = now;
    };
    for (const type of ["touchstart", "touchmove", "touchend"]) canvas.parentElement.addEventListener(type, touch, { capture: true, passive: false });
    go(middle || voxel);
    controls.hidden = false;
    canvas.dataset.ready = "yes";
    return viewer;
  };

  return start().catch((error) => {
    canvas.hidden = true;
    told.textContent = "The three planes cannot be shown here; the slices can.";
    throw error;
  });
};
