/**
 * xterm.js 6.0 writes its theme into <style> elements and, for 24-bit colours, letter spacing and the like, into style
 * attributes of spans. The Content-Security-Policy allows neither (`style-src 'self'`), and rightly: that is how
 * injected markup would restyle a page. It allows scripts to do the same (CSSOM). `documentOverride` does not help: the
 * row factory and the viewport take `window.document` all the same.
 */

/** Runs `open` so that it creates constructed style sheets instead of <style> elements. */
export function withConstructedSheets(open: () => void): void {
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

/** Replaces a <style> element: its text goes into a style sheet of the document, which is removed with the element. */
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

// Has the same effect as the attribute without being markup. Only for spans, which the row factory creates.
HTMLSpanElement.prototype.setAttribute = function (name: string, value: string): void {
  if (name === 'style') this.style.cssText = value;
  else Element.prototype.setAttribute.call(this, name, value);
};
