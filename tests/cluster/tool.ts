// The programs that the test cluster and its tests run, each built once from its Go module, at a pinned version,
// into the cache. `node tests/cluster/tool.ts NAME…` builds each if necessary and prints its path; without a name
// all of them (`npm run kube:tools`).
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { goBuildEnvironment, goCommand } from './go-toolchain.ts';
import { buildDir, clusterToolsDir, shortHash } from './layout.ts';
import { logProgress, runAsync } from './machine.ts';

export const kwokVersion = 'v0.8.0';
const buildkitVersion = 'v0.31.0';
const snapshotterVersion = 'v8.7.0';
const buildxVersion = 'v0.35.0';
const kubernetesVersion = 'v1.35.4';

type Source =
  /**
   * Built in our module in tests/cluster/go/FOLDER: its own main package, or the named one that it requires (for
   * modules whose go.mod forbids `go install`). Rebuilt when the folder's files change.
   */
  | { folder: string; package?: string; version: string; ldflags?: string }
  /** Built from a published module by itself. */
  | { package: string; version: string; ldflags?: string };

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
  /** The cluster's DNS server. */
  coredns: { folder: 'coredns', version: 'v1.14.3' },
  /** Stands in for nodes and their pods by the thousand. */
  kwok: { package: 'sigs.k8s.io/kwok/cmd/kwok', version: kwokVersion },
  helm: {
    package: 'helm.sh/helm/v3/cmd/helm',
    version: 'v3.22.0',
    ldflags: stamp('helm.sh/helm/v3/internal/version.version', 'v3.22.0'),
  },
  registry: { package: 'github.com/distribution/distribution/v3/cmd/registry', version: 'v3.1.2' },
  buildkitd: {
    folder: 'buildkit',
    package: 'github.com/moby/buildkit/cmd/buildkitd',
    version: buildkitVersion,
    ldflags: stamp('github.com/moby/buildkit/version.Version', buildkitVersion),
  },
  buildctl: {
    folder: 'buildkit',
    package: 'github.com/moby/buildkit/cmd/buildctl',
    version: buildkitVersion,
    ldflags: stamp('github.com/moby/buildkit/version.Version', buildkitVersion),
  },
  /** Docker's plugin: works by itself, and as `docker buildx` from ~/.docker/cli-plugins/docker-buildx. */
  buildx: {
    folder: 'buildkit',
    package: 'github.com/docker/buildx/cmd/buildx',
    version: buildxVersion,
    ldflags: stamp('github.com/docker/buildx/version.Version', buildxVersion),
  },
  /** Starts a rootless buildkitd. */
  rootlesskit: {
    folder: 'buildkit',
    package: 'github.com/rootless-containers/rootlesskit/v2/cmd/rootlesskit',
    version: 'v2.3.6',
  },
  /** Of the CSI project: makes and binds VolumeSnapshots; the driver's own part is not in it. */
  'snapshot-controller': {
    folder: 'snapshots',
    package: 'github.com/kubernetes-csi/external-snapshotter/v8/cmd/snapshot-controller',
    version: snapshotterVersion,
    ldflags: stamp('main.version', snapshotterVersion),
  },
  /** The program of the pause image and of the image without a shell. */
  pause: { folder: 'pause', version: '1' },
} satisfies Record<string, Source>;

export type ToolName = keyof typeof catalogue;
const toolNames = Object.keys(catalogue) as ToolName[];

const sourceHash = (source: Source): string => {
  if (!('folder' in source)) return shortHash(JSON.stringify(source));
  const folder = join(clusterToolsDir, 'go', source.folder);
  const files = readdirSync(folder).sort();
  return shortHash(
    JSON.stringify(source),
    ...files.flatMap((file) => [file, readFileSync(join(folder, file))]),
  );
};

/** How long a hook that calls tool() may take: a build on two busy cores, in ms. */
export const buildTimeout = 2_400_000;

const buildsInProgress = new Map<ToolName, Promise<string>>();

/** Builds the named tool unless it is cached, and returns the path of the program. */
export function tool(name: ToolName): Promise<string> {
  const going = buildsInProgress.get(name) ?? build(name);
  buildsInProgress.set(name, going);
  going.catch(() => buildsInProgress.delete(name));
  return going;
}

/** Removes leftovers of killed builds: `.building-NAME-PID` and the like of processes that have ended. */
export function removeLeftovers(): void {
  if (!existsSync(buildDir)) return;
  for (const entry of readdirSync(buildDir)) {
    const pid = /^\..*-(\d+)$/.exec(entry)?.[1];
    if (pid && !existsSync(`/proc/${pid}`)) rmSync(join(buildDir, entry), { recursive: true, force: true });
  }
}

async function build(name: ToolName): Promise<string> {
  const source = (catalogue as Record<string, Source>)[name]!;
  const folder = join(buildDir, `${name}-${source.version}-${sourceHash(source)}`);
  const program = join(folder, name);
  if (existsSync(program)) return program;

  const go = goCommand();
  removeLeftovers();
  const temporary = join(buildDir, `.building-${name}-${process.pid}`);
  mkdirSync(temporary, { recursive: true });
  logProgress(`Building ${name} ${source.version} (once; kept in ${folder})`);
  const began = Date.now();
  const beat = setInterval(
    () => logProgress(`  … ${name}, ${Math.round((Date.now() - began) / 1000)} s`),
    30_000,
  );
  try {
    const flags = ['-trimpath', '-buildvcs=false', '-ldflags', `-s -w ${source.ldflags ?? ''}`.trim()];
    if ('folder' in source) {
      await runAsync(go, ['build', ...flags, '-o', join(temporary, name), source.package ?? '.'], {
        cwd: join(clusterToolsDir, 'go', source.folder),
        env: goBuildEnvironment,
      });
    } else {
      await runAsync(go, ['install', ...flags, `${source.package}@${source.version}`], {
        cwd: '/',
        env: { ...goBuildEnvironment, GOBIN: temporary },
      });
    }
    try {
      renameSync(temporary, folder);
    } catch (error) {
      // Another process built it in the meantime; an existing folder is always complete.
      if (!existsSync(program)) throw error;
    }
  } finally {
    clearInterval(beat);
    rmSync(temporary, { recursive: true, force: true });
  }
  logProgress(`Built ${name} in ${Math.round((Date.now() - began) / 1000)} s`);
  return program;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const names = process.argv.slice(2) as ToolName[];
  const unknown = names.find((name) => !toolNames.includes(name));
  if (unknown !== undefined) {
    logProgress(`There is no tool ${unknown}. The tools are: ${toolNames.join(', ')}`);
    process.exit(1);
  }
  // One after the other: each build uses all cores.
  for (const name of names.length > 0 ? names : toolNames) console.log(await tool(name));
}
