// VolumeSnapshots as in a cluster with CSI: the project's own definitions and controller, without a driver that would take
// the snapshots. Until `stop` they exist for everybody on the cluster.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { goBuildEnvironment, goCommand } from './go-toolchain.ts';
import { clusterToolsDir } from './layout.ts';
import { run } from './machine.ts';
import { tool } from './tool.ts';

const kinds = ['volumesnapshotclasses', 'volumesnapshotcontents', 'volumesnapshots'];

export interface Snapshots {
  /** Stops the controller and deletes the definitions with all their objects. */
  stop(): Promise<void>;
}

/** Installs the definitions and starts the controller, which ends with this process at the latest. */
export async function startSnapshots(kubeconfig: string): Promise<Snapshots> {
  const program = await tool('snapshot-controller');
  const module = run(
    goCommand(),
    ['list', '-mod=mod', '-m', '-f', '{{.Dir}}', 'github.com/kubernetes-csi/external-snapshotter/client/v8'],
    { cwd: join(clusterToolsDir, 'go', 'snapshots'), env: goBuildEnvironment },
  ).trim();
  const files = kinds.flatMap((kind) => [
    '-f',
    join(module, 'config', 'crd', `snapshot.storage.k8s.io_${kind}.yaml`),
  ]);
  const kubectl = (...args: string[]) => run('kubectl', ['--kubeconfig', kubeconfig, ...args]);
  kubectl('apply', '--server-side', ...files);
  kubectl('wait', '--for=condition=Established', '--timeout=30s', ...files);
  const child: ChildProcess = spawn(program, ['--kubeconfig', kubeconfig, '--v=1'], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let log = '';
  child.stderr!.setEncoding('utf8').on('data', (chunk: string) => {
    log = (log + chunk).slice(-4000);
  });
  const ended = once(child, 'exit');
  const endWithUs = () => child.kill();
  process.once('exit', endWithUs);
  return {
    async stop() {
      process.off('exit', endWithUs);
      if (child.exitCode !== null) throw new Error(`The snapshot controller ended by itself: ${log}`);
      // It takes its finalizers off what goes with the definitions, so it ends after them.
      try {
        kubectl('delete', '--ignore-not-found', '--timeout=60s', ...files);
      } finally {
        child.kill();
        await ended;
      }
    },
  };
}
