import { createRequire } from 'node:module';

/** The release of cde that this server is. */
export const version: string = createRequire(import.meta.url)('../package.json').version;
