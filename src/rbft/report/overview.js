"use strict";
// Shows one method's panel at a time and filters the gallery; without it all of them are shown.
document.documentElement.classList.add("scripted");

const choice = document.getElementById("panel-choice");
if (choice) {
  const choose = () => {
    for (const panel of document.querySelectorAll(".panel")) panel.hidden = panel.id !== choice.value;
  };
  choice.addEventListener("change", choose);
  choose();
}

for (const gallery of document.querySelectorAll(".gallery")) {
  const find = (name) => gallery.querySelector(name);
  const [label, wrong, differ, shown] = [".by-class", ".by-wrong", ".by-difference", ".shown"].map(find);
  const cards = [...gallery.querySelectorAll(".card")];
  const filter = () => {
    for (const card of cards) {
      const fits = (label.value === "" || card.dataset.label === label.value)
        && (wrong.value === "" || card.dataset.wrong.split(" ").includes(wrong.value))
        && (!differ.checked || card.dataset.differ === "yes");
      card.hidden = !fits;
    }
    const count = cards.filter((card) => !card.hidden).length;
    shown.value = count ? `${count} shown` : "none fits";
  };
  for (const control of [label, wrong, differ]) control.addEventListener("change", filter);
  find(".reset").addEventListener("click", () => {
    label.value = wrong.value = "";
    differ.checked = false;
    filter();
  });
}
