import type { Option } from './command.ts';

/** Options of every command, beside its own. */
export const commonOptions: Record<string, Option> = {
  json: { kind: 'flag', help: "Print the API's own objects, and errors as JSON on stderr" },
  url: { kind: 'text', value: 'URL', help: 'The server, instead of the current one (CDE_URL)' },
};
