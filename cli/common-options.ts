import type { Option } from './command.ts';

/** Options of every command, beside its own. */
export const commonOptions: Record<string, Option> = {
  json: { kind: 'flag', help: "Print the API's own objects, and errors as JSON on stderr" },
  server: {
    kind: 'text',
    value: 'SERVER',
    help: 'The server, by its name or URL, instead of the current one (CDE_SERVER)',
  },
};
