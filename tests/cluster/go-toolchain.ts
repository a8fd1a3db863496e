// A recent Go: the machine's own, or the toolchain that Go publishes as a module, which an older Go (Debian's) can download
// and verify like any other module.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { buildDir } from './layout.ts';
import { logProgress, requirePackages, run } from './machine.ts';

/** The oldest Go that builds every tool here, and the one that is fetched if the machine has none. */
const minVersion = [1, 26, 8] as const;
const fetched = minVersion.join('.');

const goEnvironment = { ...process.env, GOTOOLCHAIN: 'local', GOFLAGS: '', CGO_ENABLED: '0' };

const isNewEnough = (go: string): boolean => {
  const shown = spawnSync(go, ['env', 'GOVERSION'], { encoding: 'utf8', env: goEnvironment });
  const version = /^go(\d+)\.(\d+)(?:\.(\d+))?/
    .exec(shown.stdout ?? '')
    ?.slice(1)
    .map((part) => Number(part ?? 0));
  if (!version) return false;
  const differs = minVersion.findIndex((part, at) => part !== version[at]);
  return differs === -1 || version[differs]! > minVersion[differs]!;
};

let found: string | undefined;

/** The path of a go command of at least that version; installs one if the machine has none. */
export function goCommand(): string {
  if (found) return found;
  for (const candidate of ['go', '/usr/local/go/bin/go']) {
    if (isNewEnough(candidate)) {
      found = candidate;
      return candidate;
    }
  }
  requirePackages('golang-go');
  logProgress(`Fetching Go ${fetched}`);
  const arch = process.arch === 'arm64' ? 'arm64' : 'amd64';
  const env = { ...goEnvironment, GOPATH: join(buildDir, 'gopath') };
  const module = `golang.org/toolchain@v0.0.1-go${fetched}.linux-${arch}`;
  const answer = JSON.parse(run('go', ['mod', 'download', '-json', module], { env, cwd: '/' })) as {
    Dir: string;
  };
  const go = join(answer.Dir, 'bin', 'go');
  // A module zip carries no permissions, so the commands are not executable.
  run('chmod', ['-R', 'u+x', join(answer.Dir, 'bin'), join(answer.Dir, 'pkg', 'tool')]);
  if (!existsSync(go) || !isNewEnough(go)) throw new Error(`${module} holds no working go command`);
  found = go;
  return go;
}

/** The environment of a build: no cgo, no other toolchain, and the machine's own module and build caches. */
export const goBuildEnvironment = goEnvironment;
