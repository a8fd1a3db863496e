import type { Option } from './command.ts';

/** Options of every command, beside its own. */
export const commonOptions: Record<string, Option> = {
  json: { kind: 'flag', help: 'Print the objects of the API as JSON, and errors as JSON on stderr' },
  server: {
    kind: 'text',
    value: 'SERVER',
    help: 'Name or URL of the server to use instead of the current one (CDE_SERVER)',
  },
};
