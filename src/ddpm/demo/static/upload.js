// Read the file that a visitor chooses, and send it as a data URI with the event `upload`.
element.addEventListener('change', (event) => {
  const file = event.target.files && event.target.files[0];
  if (!file) return;
  if (file.size > event.target.dataset.maxBytes) {
    trigger('upload', {name: file.name, data: ''});
    return;
  }
  const reader = new FileReader();
  reader.onload = () => trigger('upload', {name: file.name, data: reader.result});
  reader.readAsDataURL(file);
  event.target.value = '';  // so that the same file can be chosen again
});
