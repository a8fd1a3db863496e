/**
 * xterm.js 6.0 writes its theme into <style> elements and, for 24-bit colours, letter spacing and the like,
 * into style attributes of spans. The Content-Security-Policy allows neither (`style-src 'self'`), and
 * rightly: that is how injected markup would restyle a page. What it allows is the same by script (CSSOM).
 * `documentOverride` does not help: the row factory and the viewport take `window.document` all the same.
 */

/** Runs `open`; the <style> elements that are created in it are constructed style sheets instead. */
export function withSheets(open: () => void): void {
  const createElement = (tag: string, options?: ElementCreationOptions) => {
    const element = Document.prototype.createElement.call(document, tag === 'style' ? 'meta' : tag, options);
    return tag === 'style' ? sheetElement(element) : element;
  };
  Object.defineProperty(document, 'createElement', { value: createElement, configurable: true });
  try {
    open();
  } finally {
    Reflect.deleteProperty(document, 'createElement');
  }
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

// To the same effect as the attribute, but not as markup. Spans only: those are what the row factory makes.
HTMLSpanElement.prototype.setAttribute = function (name: string, value: string): void {
  if (name === 'style') this.style.cssText = value;
  else Element.prototype.setAttribute.call(this, name, value);
};
