import { readFileSync } from 'node:fs';
import type { DeveloperProcess } from './processes.ts';

/** Programs that do nothing but build images. */
const builders = new Set(['buildctl', 'buildah', 'kaniko', 'docker-buildx']);
/** Programs that also do. */
const clients = new Set([
  'docker',
  'podman',
  'nerdctl',
  'cde',
  'node',
  'skaffold',
  'devcontainer',
  'earthly',
]);
/** Arguments of a build, as in `docker buildx build`, `docker compose build`, `cde build`. */
const buildWords = new Set(['build', 'bake']);
/** Only the first arguments tell the subcommand; later ones are the user's. */
const maxWords = 6;

/**
 * The name of a running image build, if there is one. The work is done by a daemon or by the cluster's builder, so it uses no CPU
 * here; the client waits for it.
 */
export function findBuild(
  processes: readonly Pick<DeveloperProcess, 'pid' | 'name'>[],
  root = '',
): string | undefined {
  for (const { pid, name } of processes) {
    if (builders.has(name)) return name;
    if (!clients.has(name)) continue;
    let words: string[];
    try {
      words = readFileSync(`${root}/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, maxWords);
    } catch {
      continue;
    }
    if (name === 'node') {
      // The CLI as a script: `node /usr/lib/…/cde build`.
      const script = words.findIndex((word) => /(^|\/)cde(\.m?js)?$/.test(word));
      if (script < 0) continue;
      words = words.slice(script);
    }
    if (words.slice(1).some((word) => buildWords.has(word))) return name === 'node' ? 'cde' : name;
  }
  return undefined;
}
