export function mount(root) { root.textContent = 'soon'; }
