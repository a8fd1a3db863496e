import type { ITheme } from '@xterm/xterm';

const light: ITheme = {
  background: '#ffffff',
  foreground: '#182120',
  cursor: '#0b6857',
  cursorAccent: '#ffffff',
  selectionBackground: '#bfe3da',
  black: '#182120',
  red: '#b3261e',
  green: '#1b7a43',
  yellow: '#8a5a00',
  blue: '#1c61b4',
  magenta: '#8b3a92',
  cyan: '#0b6f7d',
  white: '#6d7877',
  brightBlack: '#586463',
  brightRed: '#cf3a31',
  brightGreen: '#23914f',
  brightYellow: '#a06c09',
  brightBlue: '#2f78d0',
  brightMagenta: '#a24daa',
  brightCyan: '#118496',
  brightWhite: '#3c4746',
};

const dark: ITheme = {
  background: '#101414',
  foreground: '#e3e9e8',
  cursor: '#58c9b0',
  cursorAccent: '#101414',
  selectionBackground: '#27564b',
  black: '#293130',
  red: '#f28b82',
  green: '#63ce8d',
  yellow: '#e5b355',
  blue: '#7db4f5',
  magenta: '#d79be0',
  cyan: '#63cbd9',
  white: '#d5dcdb',
  brightBlack: '#7b8886',
  brightRed: '#ffaba3',
  brightGreen: '#8be3ab',
  brightYellow: '#f6cd80',
  brightBlue: '#a5ccff',
  brightMagenta: '#ecbdf2',
  brightCyan: '#93e2ec',
  brightWhite: '#ffffff',
};

const preference = matchMedia('(prefers-color-scheme: dark)');

/** The terminal's colours in the user's preferred colour scheme. */
export const theme = (): ITheme => (preference.matches ? dark : light);

export function onThemeChange(listener: () => void): () => void {
  preference.addEventListener('change', listener);
  return () => preference.removeEventListener('change', listener);
}
