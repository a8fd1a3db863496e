import { readFileSync } from 'node:fs';
import type { DeveloperProcess } from './processes.ts';

/** Programs that do nothing but build images. */
const builders = new Set(['buildctl', 'buildah', 'kaniko', 'earthly']);
/** Programs that can build images, among other things: their subcommand decides. */
const clients = new Set([
  'docker',
  'docker-buildx',
  'docker-compose',
  'podman',
  'nerdctl',
  'cde',
  'node',
  'skaffold',
  'devcontainer',
]);
/** What follows `docker`, `podman` or `nerdctl`, without options. */
const buildCommands = new Set([
  'build',
  'image build',
  'builder build',
  'buildx build',
  'buildx bake',
  'compose build',
]);
/** Options before the subcommand whose value is the next argument. All others are flags, or are written as `--option=value`. */
const optionsWithValue: Record<string, ReadonlySet<string>> = {
  cde: new Set(['--server', '--url']),
  node: new Set(['-r', '--require', '--import', '--loader', '--experimental-loader', '-C', '--conditions']),
  compose: new Set(
    '-f --file -p --project-name --profile --env-file --project-directory --ansi --progress --parallel'.split(
      ' ',
    ),
  ),
  client: new Set(
    '-H --host -c --context --config -l --log-level --tlscacert --tlscert --tlskey --connection --url --identity --root --runroot --builder -n --namespace -a --address'.split(
      ' ',
    ),
  ),
};
/** Processes whose arguments are read before yielding to the event loop: less than a millisecond. */
const processesAtOnce = 64;

/**
 * The name of a running image build, if there is one. A daemon or the cluster's builder does the work, so it uses no CPU here and
 * only its client shows that it runs.
 */
export async function findBuild(
  processes: readonly Pick<DeveloperProcess, 'pid' | 'name'>[],
  root = '',
): Promise<string | undefined> {
  let read = 0;
  for (const { pid, name } of processes) {
    if (builders.has(name)) return name;
    if (!clients.has(name)) continue;
    read += 1;
    if (read % processesAtOnce === 0) await new Promise(setImmediate);
    let words: string[];
    try {
      words = readFileSync(`${root}/proc/${pid}/cmdline`, 'utf8').split('\0').slice(1);
    } catch {
      continue;
    }
    const found = builderOf(name, words);
    if (found) return found;
  }
  return undefined;
}

function builderOf(name: string, words: readonly string[]): string | undefined {
  if (name === 'node') {
    // The CLI as a script: `node /usr/lib/…/cde build`.
    const [script, rest] = nextWord(words, 'node');
    return script !== undefined && /(^|\/)cde(\.m?js)?$/.test(script) && nextWord(rest, 'cde')[0] === 'build'
      ? 'cde'
      : undefined;
  }
  if (name === 'docker-compose') return isBuild(words, 'compose') ? name : undefined;
  if (name === 'docker-buildx') return isBuild(words, 'buildx') ? name : undefined;
  if (name === 'docker' || name === 'podman' || name === 'nerdctl') return isBuild(words) ? name : undefined;
  return nextWord(words, name)[0] === 'build' ? name : undefined;
}

/** `plugin` is the group of commands that the program itself implements. */
function isBuild(words: readonly string[], plugin?: string): boolean {
  let [command, rest] = nextWord(words);
  // Docker starts its plugins with their own name: `docker-compose compose build`.
  if (plugin && command !== plugin) {
    command = plugin;
    rest = words;
  }
  if (command === undefined) return false;
  if (buildCommands.has(command)) return true;
  return buildCommands.has(`${command} ${nextWord(rest, command)[0]}`);
}

/** The first word that is neither an option nor the value of one, and what follows it. */
function nextWord(
  words: readonly string[],
  command = '',
): [word: string | undefined, rest: readonly string[]] {
  const withValue = optionsWithValue[command] ?? optionsWithValue.client!;
  for (let at = 0; at < words.length; at += 1) {
    const word = words[at]!;
    if (!word.startsWith('-')) return [word, words.slice(at + 1)];
    if (withValue.has(word)) at += 1;
  }
  return [undefined, []];
}
