import { readFileSync } from 'node:fs';
import type Dockerode from 'dockerode';
import { ProviderFailure } from '../failure.ts';
import { isUnreachable, messageOf, orNull } from './engine.ts';

/** How a template wants its image pulled. */
export type PullPolicy = 'Always' | 'IfNotPresent' | 'Never';

interface Pull {
  /** Bytes of each layer, as far as they are known. */
  layers: Map<string, { done: number; total: number }>;
  outcome?: { error: unknown } | 'done';
}

/** One line of the engine's progress. */
interface Progress {
  id?: string;
  status?: string;
  error?: string;
  progressDetail?: { current?: number; total?: number };
}

const mebibyte = 2 ** 20;
/** Of those that are remembered. */
const maxPulls = 1000;

/** Pulls images. Docker shares the work of pulls of the same image, so each replica can start its own. */
export function makeImages(engine: () => Promise<Dockerode>, credentialsFile: string | undefined) {
  const pulls = new Map<string, Pull>();

  function begin(key: string, image: string): Pull {
    const layers: Pull['layers'] = new Map();
    const run = async () => {
      const client = await engine();
      const auth = credentialsFor(image, credentialsFile);
      const stream = await client.pull(withTag(image), auth ? { authconfig: auth } : {});
      await new Promise<void>((resolve, reject) =>
        client.modem.followProgress(
          stream,
          (error: Error | null, lines: Progress[]) => {
            const failed = error ?? lines.find((line) => line.error);
            if (failed instanceof Error) reject(failed);
            else if (failed) reject(new Error(failed.error));
            else resolve();
          },
          ({ id, progressDetail }: Progress) => {
            if (id && progressDetail?.total)
              layers.set(id, { done: progressDetail.current ?? 0, total: progressDetail.total });
          },
        ),
      );
    };
    const pull: Pull = { layers };
    run().then(
      () => {
        pull.outcome = 'done';
      },
      (error) => {
        pull.outcome = { error };
      },
    );
    if (pulls.size >= maxPulls) pulls.delete(pulls.keys().next().value!);
    pulls.set(key, pull);
    return pull;
  }

  return {
    /**
     * The image's user once the image is on the engine; until then, what is waited for.
     * @param build for which `Always` pulls once
     */
    async ensure(
      image: string,
      policy: PullPolicy,
      build: string,
    ): Promise<{ user: string } | { waitingFor: string }> {
      const client = await engine();
      const found = await orNull(client.getImage(image).inspect());
      const key = policy === 'Always' ? `${build} ${image}` : image;
      if (found && policy !== 'Always') {
        pulls.delete(key);
        return { user: found.Config.User };
      }
      if (policy === 'Never')
        throw new ProviderFailure({
          code: 'image-not-on-node',
          message: `The image ${image} is not on the Docker engine, and the template forbids pulling it.`,
          hint: 'Load the image there, or change docker.pullPolicy in the template.',
          fault: 'user',
        });
      const pull = pulls.get(key) ?? begin(key, image);
      const { outcome } = pull;
      if (outcome === 'done' && found) return { user: found.Config.User };
      if (!outcome) return { waitingFor: describePull(image, pull) };
      pulls.delete(key);
      // Removed since it was pulled: the next step pulls it again.
      if (outcome === 'done') return { waitingFor: describePull(image, pull) };
      if (isUnreachable(outcome.error)) throw outcome.error;
      throw pullFailure(image, messageOf(outcome.error));
    },
  };
}

export type Images = ReturnType<typeof makeImages>;

function describePull(image: string, { layers }: Pull): string {
  let done = 0;
  let total = 0;
  for (const layer of layers.values()) {
    done += layer.done;
    total += layer.total;
  }
  const amount = total > 0 ? `: ${Math.round(done / mebibyte)} of ${Math.round(total / mebibyte)} MiB` : '';
  return `The image ${image} is being pulled${amount}.`;
}

/** Without a tag, the API pulls all tags. */
function withTag(image: string): string {
  return /[@:][^/]*$/.test(image) ? image : `${image}:latest`;
}

/** The host of the registry, as Docker finds it. */
export function registryOf(image: string): string {
  const [first, ...rest] = image.split('/');
  return rest.length > 0 && /[.:]|^localhost$/.test(first!) ? first! : 'docker.io';
}

/** The credentials of a Docker config.json: `auths` of the registry, without helpers. */
export function credentialsFor(
  image: string,
  file: string | undefined,
): { username: string; password: string; serveraddress: string } | null {
  if (file === undefined) return null;
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch {
    return null;
  }
  let auths: Record<string, { auth?: string }>;
  try {
    auths = (JSON.parse(text) as { auths?: typeof auths }).auths ?? {};
  } catch {
    throw new ProviderFailure({
      code: 'registry-credentials-invalid',
      message: `The registry credentials in ${file} are not JSON.`,
      hint: 'Sign in again with docker login, or correct the file.',
      fault: 'system',
    });
  }
  const registry = registryOf(image);
  const keys =
    registry === 'docker.io'
      ? ['https://index.docker.io/v1/', 'docker.io']
      : [registry, `https://${registry}`];
  for (const serveraddress of keys) {
    const { auth } = auths[serveraddress] ?? {};
    if (!auth) continue;
    const [username, ...password] = Buffer.from(auth, 'base64').toString().split(':');
    return { username: username!, password: password.join(':'), serveraddress };
  }
  return null;
}

const pullFailures: [
  pattern: RegExp,
  code: string,
  message: string,
  hint: string,
  fault: 'user' | 'system',
][] = [
  [
    /toomanyrequests|rate limit/i,
    'image-rate-limited',
    'The registry limits how often images are pulled.',
    'Wait, or give the server credentials for it: CDE_DOCKER_CONFIG.',
    'system',
  ],
  [
    /unauthorized|access.*denied|denied:|authentication required|no basic auth/i,
    'image-no-access',
    'The registry refuses access, or there is no such image.',
    'Check its name; a private registry needs credentials: CDE_DOCKER_CONFIG.',
    'user',
  ],
  [
    /manifest.*(unknown|not found)|not found|does not exist/i,
    'image-not-found',
    'There is no such image in the registry.',
    'Check the name and the tag in the template.',
    'user',
  ],
  [
    /no space left/i,
    'image-no-disk',
    "The engine's disk is full.",
    'Free space on it: docker system df.',
    'system',
  ],
  [
    /no matching manifest|does not match the specified platform/i,
    'image-platform',
    'The image is not built for the processor of the engine.',
    'Use an image that is.',
    'user',
  ],
  [
    /x509|certificate/i,
    'image-registry-untrusted',
    "The engine does not trust the registry's certificate.",
    'Give the engine its certificate authority.',
    'system',
  ],
  [
    /lookup|dial tcp|timeout|connection refused|deadline/i,
    'image-registry-unreachable',
    'The engine cannot reach the registry.',
    'Check the name of the registry, and the network of the engine.',
    'system',
  ],
  [
    /invalid reference/i,
    'image-invalid-name',
    'This is no name of an image.',
    'Correct docker.image.',
    'user',
  ],
];

export function pullFailure(image: string, said: string): ProviderFailure {
  const known = pullFailures.find(([pattern]) => pattern.test(said));
  const [, code, message, hint, fault] = known ?? [
    /./,
    'image-not-pulled',
    'The engine could not pull it.',
    'See the detail.',
    'system' as const,
  ];
  return new ProviderFailure({
    code,
    message: `The image ${image} could not be pulled. ${message}`,
    detail: said,
    hint,
    fault,
  });
}
