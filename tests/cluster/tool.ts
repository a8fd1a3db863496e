// The programs that the test cluster and its tests run, each built once from its Go module, at a pinned version,
// into the cache. `node tests/cluster/tool.ts NAME` prints the path of one, building it if need be.
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { goBuildEnvironment, goCommand } from './go-toolchain.ts';
import { Refusal, runAsync, say } from './machine.ts';
import { buildDir, hashOf, here } from './places.ts';

export const kubernetesVersion = 'v1.35.4';

type Source =
  /** A main package of ours in tests/cluster/go/FOLDER; rebuilt when its files change. */
  | { folder: string; version: string; ldflags?: string }
  /** A published one. */
  | { package: string; version: string; ldflags?: string; tags?: string };

const stamp = (name: string, value: string) => `-X ${name}=${value}`;
const kubernetesStamps = ['k8s.io/component-base/version', 'k8s.io/client-go/pkg/version']
  .flatMap((at) => [
    stamp(`${at}.gitVersion`, kubernetesVersion),
    stamp(`${at}.gitMajor`, '1'),
    stamp(`${at}.gitMinor`, '35'),
  ])
  .join(' ');

const catalogue = {
  /** kube-apiserver, kube-controller-manager, kube-scheduler, kubelet, kube-proxy and kubectl, by first argument. */
  kube: { folder: 'kube', version: kubernetesVersion, ldflags: kubernetesStamps },
  /** The program of the pause image and of the image without a shell. */
  pause: { folder: 'pause', version: '1' },
} satisfies Record<string, Source>;

export type ToolName = keyof typeof catalogue;
export const toolNames = Object.keys(catalogue) as ToolName[];

const sourceHash = (source: Source): string => {
  if ('package' in source) return hashOf(JSON.stringify(source));
  const folder = join(here, 'go', source.folder);
  const files = readdirSync(folder).sort();
  return hashOf(JSON.stringify(source), ...files.flatMap((file) => [file, readFileSync(join(folder, file))]));
};

const underWay = new Map<ToolName, Promise<string>>();

/** Builds the named tool unless the cache has it, and returns the path of the program. */
export function tool(name: ToolName): Promise<string> {
  const going = underWay.get(name) ?? build(name);
  underWay.set(name, going);
  going.catch(() => underWay.delete(name));
  return going;
}

async function build(name: ToolName): Promise<string> {
  const source = (catalogue as Record<string, Source>)[name]!;
  const folder = join(buildDir, `${name}-${source.version}-${sourceHash(source)}`);
  const program = join(folder, name);
  if (existsSync(program)) return program;

  const go = goCommand();
  const temporary = join(buildDir, `.building-${name}-${process.pid}`);
  mkdirSync(temporary, { recursive: true });
  say(`Building ${name} ${source.version} (once; kept in ${folder})`);
  const began = Date.now();
  const beat = setInterval(() => say(`  … ${name}, ${Math.round((Date.now() - began) / 1000)} s`), 30_000);
  try {
    const flags = ['-trimpath', '-buildvcs=false', '-ldflags', `-s -w ${source.ldflags ?? ''}`.trim()];
    if ('folder' in source) {
      await runAsync(go, ['build', ...flags, '-o', join(temporary, name), '.'], {
        cwd: join(here, 'go', source.folder),
        env: goBuildEnvironment,
      });
    } else {
      const tags = source.tags ? ['-tags', source.tags] : [];
      await runAsync(go, ['install', ...flags, ...tags, `${source.package}@${source.version}`], {
        cwd: '/',
        env: { ...goBuildEnvironment, GOBIN: temporary },
      });
    }
    // Another process may have built it meanwhile: a folder that is there is complete, so theirs will do.
    if (!existsSync(program)) renameSync(temporary, folder);
  } finally {
    clearInterval(beat);
    rmSync(temporary, { recursive: true, force: true });
  }
  say(`Built ${name} in ${Math.round((Date.now() - began) / 1000)} s`);
  return program;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const name = process.argv[2] as ToolName;
  if (!toolNames.includes(name)) {
    throw new Refusal(`usage: node tests/cluster/tool.ts NAME, where NAME is one of ${toolNames.join(', ')}`);
  }
  console.log(await tool(name));
}
