/**
 * The second secret of the browser session. Browsers send the cookie to every port of the host, so a program that listens on
 * another one gets it; storage belongs to the dashboard's own origin, port included.
 */
const name = 'cde-session-key';

/** Null while nobody is signed in. */
export const sessionKey = (): string | null => localStorage.getItem(name);
export const keepSessionKey = (key: string): void => localStorage.setItem(name, key);
export const forgetSessionKey = (): void => localStorage.removeItem(name);
