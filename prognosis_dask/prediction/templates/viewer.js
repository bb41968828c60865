"use strict";
// Slices: fetched as they are asked for on the server's page, held in the file that was downloaded.
(() => {
  for (const image of document.querySelectorAll("img.slice[data-aspect]")) image.style.aspectRatio = image.dataset.aspect;

  const form = document.getElementById("viewer");
  if (form) {
    const image = document.getElementById("slice-image");
    const told = document.getElementById("slice-told");
    const slices = Number(form.elements.slice.max) + 1;
    let busy = false, again = false;
    const show = () => {
      if (image.hidden) return;  // the three planes are shown instead
      if (busy) { again = true; return; }
      busy = true;
      const at = Number(form.elements.slice.value) + 1;
      told.textContent = `${at} of ${slices}`;
      image.alt = `Slice ${at} of ${slices}${form.elements.outline.checked ? ", with the outline of the structure" : ""}`;
      const asked = new URLSearchParams(new FormData(form));
      image.src = `${form.dataset.address}?${asked}`;
    };
    const ready = () => { busy = false; if (again) { again = false; show(); } };
    image.addEventListener("load", ready);
    image.addEventListener("error", ready);
    form.addEventListener("input", show);
    form.addEventListener("submit", (event) => { event.preventDefault(); show(); });
    for (const button of form.querySelectorAll("[data-centre]")) {
      button.addEventListener("click", () => {
        form.elements.centre.value = button.dataset.centre;
        form.elements.width.value = button.dataset.width;
        show();
      });
    }
    document.getElementById("jump").addEventListener("click", (event) => {
      if (image.hidden) return;
      form.elements.slice.value = event.target.dataset.slice;
      show();
    });

    const open = document.getElementById("volume-open");
    if (open && document.createElement("canvas").getContext("webgl2")) {
      const begin = () => {
        open.hidden = true;
        const told = document.getElementById("volume-told");
        told.textContent = "Fetching the image…";
        const script = document.createElement("script");
        script.src = "/static/niivue.js";
        script.addEventListener("error", () => { told.textContent = "The three planes cannot be fetched; the slices can."; });
        script.addEventListener("load", async () => {
          const source = { image: form.dataset.image, mask: form.dataset.mask, unit: form.dataset.unit };
          try {
            await globalThis.openVolume(form, source);
            image.hidden = true;
          } catch (error) { console.warn(`${error}`); }
        });
        document.head.append(script);
      };
      open.hidden = false;
      open.querySelector("button").addEventListener("click", begin);
      // on a phone the image is large, and may cost money: it is fetched when it is asked for
      if (globalThis.matchMedia("(min-width: 48rem)").matches) begin();
    }
  }

  const held = document.getElementById("held-slice");
  if (held) {
    const pairs = [...document.querySelectorAll(".pair")];
    held.addEventListener("input", () => {
      pairs.forEach((pair, place) => { pair.hidden = place !== Number(held.value); });
      document.getElementById("held-told").textContent = `${Number(pairs[held.value].dataset.index) + 1} of ${held.dataset.slices}`;
    });
    document.getElementById("held-outline").addEventListener("change", (event) => {
      for (const over of document.querySelectorAll(".over")) over.hidden = !event.target.checked;
    });
  }
})();
