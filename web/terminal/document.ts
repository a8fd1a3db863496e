/**
 * xterm.js writes its colours and sizes into <style> elements and, for 24-bit colours, into style
 * attributes. The Content-Security-Policy allows neither (`style-src 'self'`), and rightly: that is how
 * injected markup would restyle a page. What it does allow is the same by script (CSSOM), so the terminal
 * gets a document whose <style> is a constructed style sheet and whose setAttribute('style') sets `cssText`.
 */

function createElement(tag: string, options?: ElementCreationOptions): HTMLElement {
  const create = (name: string) => Document.prototype.createElement.call(document, name, options);
  if (tag === 'style') return sheetElement(create('meta'));
  const element = create(tag);
  if (tag === 'span') element.setAttribute = setSpanAttribute;
  return element;
}

function setSpanAttribute(this: HTMLElement, name: string, value: string): void {
  if (name === 'style') this.style.cssText = value;
  else Element.prototype.setAttribute.call(this, name, value);
}

/** Stands for a <style>: its text goes into a style sheet of the document, which leaves with the element. */
function sheetElement(element: HTMLElement): HTMLElement {
  const sheet = new CSSStyleSheet();
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
  Object.defineProperty(element, 'textContent', {
    get: () => '',
    set: (text: string) => sheet.replaceSync(text),
  });
  element.remove = () => {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((known) => known !== sheet);
    Element.prototype.remove.call(element);
  };
  return element;
}

/** For the terminal's `documentOverride`: the page's document, but for the elements it creates. */
export const terminalDocument: Document = new Proxy(document, {
  get(target, key) {
    if (key === 'createElement') return createElement;
    const value = Reflect.get(target, key, target) as unknown;
    return typeof value === 'function' ? value.bind(target) : value;
  },
});

/**
 * Runs `open`, in which xterm.js 6.0 makes one of its <style> elements from `window.document`, whatever
 * the override says. What it makes later goes through the override.
 */
export function opening(open: () => void): void {
  Object.defineProperty(document, 'createElement', { value: createElement, configurable: true });
  try {
    open();
  } finally {
    Reflect.deleteProperty(document, 'createElement');
  }
}
