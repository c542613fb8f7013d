// The slider of a finished animation shows its frames, which lie in the page as JSON.
// A new animation is put into the elements of the old one: forget the old one's frames then, and
// move the slider to the end.
let frames = null;
watch('value', () => {
  frames = null;
  const slider = element.querySelector('.scrub input');
  if (slider) slider.value = slider.max;
});
element.addEventListener('input', (event) => {
  const player = event.target.closest('.player');
  if (!player) return;
  frames ??= JSON.parse(player.dataset.frames);
  const [x, x0, caption] = frames[event.target.value];
  const [left, right] = player.querySelectorAll('img');
  left.src = x;
  right.src = x0;
  player.querySelector('.caption').innerHTML = caption;
  player.querySelector('.progress-bar').value = event.target.value / event.target.max;
});
