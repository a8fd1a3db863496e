import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

/** The folder with the agent's bundle, if it is built. */
export const agentBundle = join(root, 'agent', 'dist');

/** How the local provider starts an agent: the bundle if it is built, otherwise the sources. */
export function agentProgram(): { command: string[]; readOnlyPaths: string[] } {
  const bundle = join(agentBundle, 'agent.mjs');
  const program = existsSync(bundle) ? bundle : join(root, 'agent', 'main.ts');
  const parts = existsSync(bundle) ? ['agent/dist'] : ['agent', 'api', 'tunnel', 'filesync', 'package.json'];
  return {
    command: [process.execPath, program],
    readOnlyPaths: [...parts.map((part) => join(root, part)), join(root, 'node_modules')],
  };
}
