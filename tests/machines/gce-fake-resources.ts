import { randomUUID } from 'node:crypto';

export interface Answer {
  status: number;
  body: unknown;
}

interface Request {
  method: string;
  path: string;
  query: URLSearchParams;
  body: Body | undefined;
  isAuthorized: boolean;
  refusal?: { of: 'call' | 'operation'; status: number; reason: string };
}

type Body = Record<string, any>;
interface Resource extends Body {
  name: string;
  zone?: string;
  labels: Record<string, string>;
}

/** How long operations take. */
const operationMs = 15;
/** Long enough that steps see a machine that is being deleted. */
const deletionMs = 120;
/** Small, so that lists have several pages. */
const maxPage = 3;
const namePattern = /^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$/;
const uuidPattern = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const machineTypes: Record<string, { guestCpus: number; memoryMb: number }> = {
  'e2-micro': { guestCpus: 2, memoryMb: 1024 },
  'e2-medium': { guestCpus: 2, memoryMb: 4096 },
};
const diskTypes = new Set(['pd-balanced', 'pd-ssd']);

/** A reply that is no success. */
class Refused extends Error {
  readonly status: number;
  readonly reason: string;
  constructor(status: number, reason: string, message: string) {
    super(message);
    this.status = status;
    this.reason = reason;
  }
}
const notFound = (what: string) => new Refused(404, 'notFound', `The resource '${what}' was not found`);
const invalid = (message: string) => new Refused(400, 'invalid', message);
const last = (url: string) => url.slice(url.lastIndexOf('/') + 1);

/** What the fake keeps of a project, and what its calls do. */
export function makeFakeResources(project: string, region: string) {
  const zones = ['a', 'b', 'c'].map((letter) => `${region}-${letter}`);
  const root = `https://www.googleapis.com/compute/v1/projects/${project}`;
  const instances = new Map<string, Resource>();
  const disks = new Map<string, Resource>();
  const snapshots = new Map<string, Resource>();
  const firewalls = new Map<string, Resource>();
  const operations = new Map<string, Body>();
  const byRequest = new Map<string, Body>();
  const consoles = new Map<string, string>();
  let nextId = 1000;
  const fingerprint = () => randomUUID().slice(0, 8);
  const diskUrl = (zone: string, name: string) => `${root}/zones/${zone}/disks/${name}`;
  const instanceUrl = (zone: string, name: string) => `${root}/zones/${zone}/instances/${name}`;

  /** Begins an operation, which after a while does what it is for. */
  function begin(
    { refusal }: Pick<Request, 'refusal'>,
    at: { type: string; zone?: string | undefined; target?: Resource; ms?: number },
    effect: () => void = () => {},
    undo: () => void = () => {},
  ): Body {
    const operation: Body = {
      name: `operation-${nextId++}`,
      operationType: at.type,
      status: 'RUNNING',
      insertTime: new Date().toISOString(),
      targetId: at.target?.id,
      ...(at.zone !== undefined && { zone: `${root}/zones/${at.zone}` }),
    };
    operations.set(operation.name, operation);
    setTimeout(() => {
      operation.status = 'DONE';
      try {
        if (refusal) throw new Refused(refusal.status, refusal.reason, 'injected by the test');
        effect();
      } catch (error) {
        const { status, reason, message } = error as Refused;
        Object.assign(operation, {
          httpErrorStatusCode: status,
          error: { errors: [{ code: reason, message }] },
        });
        undo();
      }
    }, at.ms ?? operationMs).unref();
    return operation;
  }
  /** What happens without a call: it is listed among the operations. */
  function record(type: string, zone: string, target: Resource) {
    const operation = {
      name: `system-${nextId++}`,
      operationType: type,
      status: 'DONE',
      targetId: target.id,
    };
    operations.set(operation.name, {
      ...operation,
      zone: `${root}/zones/${zone}`,
      insertTime: new Date().toISOString(),
    });
  }

  function checkName(name: unknown) {
    if (typeof name !== 'string' || !namePattern.test(name))
      throw invalid(`Invalid value for field 'resource.name': '${name}'`);
  }
  function checkLabels(labels: Record<string, string> = {}) {
    for (const [key, value] of Object.entries(labels))
      if (!/^[a-z][a-z0-9_-]{0,62}$/.test(key) || !/^[a-z0-9_-]{0,63}$/.test(value))
        throw invalid(`Invalid label: ${key}=${value}`);
    if (Object.keys(labels).length > 64) throw invalid('Too many labels');
  }
  const get = (all: Map<string, Resource>, key: string) => {
    const found = all.get(key);
    if (!found) throw notFound(key);
    return found;
  };
  const isUsed = (disk: Resource) => (disk.users as string[]).length > 0;
  function detachAll(instance: Resource) {
    for (const { source, autoDelete } of instance.disks as Body[]) {
      const key = `${source.split('/').at(-3)}/${last(source)}`;
      const disk = disks.get(key);
      if (disk) disk.users = disk.users.filter((each: string) => each !== instance.selfLink);
      if (autoDelete) disks.delete(key);
    }
  }

  function makeDisk(zone: string, body: Body, extra: Body = {}): Resource {
    checkName(body.name);
    checkLabels(body.labels);
    if (body.type && !diskTypes.has(last(body.type))) throw invalid(`Invalid disk type: ${body.type}`);
    const key = `${zone}/${body.name}`;
    if (disks.has(key)) throw new Refused(409, 'alreadyExists', `The resource '${key}' already exists`);
    const snapshot = body.sourceSnapshot ? get(snapshots, last(body.sourceSnapshot)) : undefined;
    if (snapshot && snapshot.status !== 'READY')
      throw new Refused(400, 'resourceNotReady', 'The snapshot is not ready');
    const disk: Resource = {
      ...(body as Resource),
      labels: body.labels ?? {},
      id: String(nextId++),
      zone: `${root}/zones/${zone}`,
      selfLink: diskUrl(zone, body.name),
      status: 'CREATING',
      users: [],
      creationTimestamp: new Date().toISOString(),
      labelFingerprint: fingerprint(),
      ...extra,
    };
    disks.set(key, disk);
    return disk;
  }

  function insertInstance(request: Request, zone: string): Body {
    const body = request.body!;
    checkName(body.name);
    checkLabels(body.labels);
    const key = `${zone}/${body.name}`;
    if (instances.has(key)) throw new Refused(409, 'alreadyExists', `The resource '${key}' already exists`);
    if (!machineTypes[last(body.machineType)]) throw invalid(`Invalid machine type: ${body.machineType}`);
    const metadata = body.metadata?.items as { key: string; value: string }[];
    if (metadata.some(({ value }) => value.length > 256 * 1024)) throw invalid('Metadata is too large');
    const now = new Date().toISOString();
    const created = (body.disks as Body[]).map((disk, index) => {
      const { initializeParams: params } = disk;
      const name = index === 0 ? body.name : params.diskName;
      const type = params.diskType;
      makeDisk(zone, { name, type, sizeGb: params.diskSizeGb, labels: params.labels }, { status: 'READY' });
      disks.get(`${zone}/${name}`)!.users.push(instanceUrl(zone, body.name));
      return {
        ...disk,
        source: diskUrl(zone, name),
        deviceName: 'persistent-disk-0',
        architecture: architecture(),
      };
    });
    const instance: Resource = {
      ...(body as Resource),
      labels: body.labels ?? {},
      id: String(nextId++),
      zone: `${root}/zones/${zone}`,
      selfLink: instanceUrl(zone, body.name),
      machineType: `${root}/${body.machineType}`,
      status: 'PROVISIONING',
      disks: created,
      creationTimestamp: now,
      lastStartTimestamp: now,
      labelFingerprint: fingerprint(),
      metadata: { items: metadata, fingerprint: fingerprint() },
    };
    instances.set(key, instance);
    return begin(
      request,
      { type: 'insert', zone, target: instance },
      () => {
        if (instance.status === 'PROVISIONING') instance.status = 'RUNNING';
      },
      () => {
        detachAll(instance);
        instances.delete(key);
      },
    );
  }

  function changeLabels(resource: Resource, { body }: Request) {
    if (body!.labelFingerprint !== resource.labelFingerprint)
      throw new Refused(
        412,
        'conditionNotMet',
        'Labels fingerprint either invalid or resource labels have changed',
      );
    checkLabels(body!.labels);
    resource.labels = body!.labels;
    resource.labelFingerprint = fingerprint();
  }

  const instanceCalls: Record<string, (instance: Resource, request: Request, zone: string) => Body> = {
    stop(instance, request, zone) {
      instance.status = 'STOPPING';
      return begin(request, { type: 'stop', zone, target: instance }, () => {
        instance.status = 'TERMINATED';
      });
    },
    start(instance, request, zone) {
      if (instance.status !== 'TERMINATED')
        throw new Refused(400, 'resourceNotReady', 'The instance is not stopped');
      instance.status = 'STAGING';
      return begin(
        request,
        { type: 'start', zone, target: instance },
        () => {
          instance.status = 'RUNNING';
          instance.lastStartTimestamp = new Date().toISOString();
        },
        () => {
          instance.status = 'TERMINATED';
        },
      );
    },
    setLabels(instance, request, zone) {
      changeLabels(instance, request);
      return begin({}, { type: 'setLabels', zone, target: instance });
    },
    setMetadata(instance, request, zone) {
      const { fingerprint: given, items } = request.body!;
      if (given !== instance.metadata.fingerprint)
        throw new Refused(
          412,
          'conditionNotMet',
          'Supplied fingerprint does not match current metadata fingerprint.',
        );
      instance.metadata = { items, fingerprint: fingerprint() };
      return begin(request, { type: 'setMetadata', zone, target: instance });
    },
    attachDisk(instance, request, zone) {
      const { source, ...wanted } = request.body!;
      const disk = get(disks, `${source.split('/').at(-3)}/${last(source)}`);
      if (!disk.zone!.endsWith(zone)) throw invalid('The disk is in another zone');
      if (isUsed(disk))
        throw new Refused(
          400,
          'resourceInUseByAnotherResource',
          `The disk resource '${disk.name}' is already being used`,
        );
      if (!['RUNNING', 'TERMINATED'].includes(instance.status))
        throw new Refused(400, 'resourceNotReady', 'The instance is not ready');
      disk.users.push(instance.selfLink);
      return begin(request, { type: 'attachDisk', zone, target: instance }, () => {
        if (instances.has(`${zone}/${instance.name}`))
          instance.disks.push({ ...wanted, source: disk.selfLink });
        else disk.users = [];
      });
    },
    setDiskAutoDelete(instance, request, zone) {
      const disk = (instance.disks as Body[]).find(
        ({ deviceName }) => deviceName === request.query.get('deviceName'),
      );
      if (!disk) throw invalid('No such device');
      disk.autoDelete = request.query.get('autoDelete') === 'true';
      return begin(request, { type: 'setDiskAutoDelete', zone, target: instance });
    },
  };

  const diskCalls: Record<string, (disk: Resource, request: Request, zone: string) => Body> = {
    setLabels(disk, request, zone) {
      changeLabels(disk, request);
      return begin({}, { type: 'setLabels', zone, target: disk });
    },
    resize(disk, request, zone) {
      if (Number(request.body!.sizeGb) < Number(disk.sizeGb)) throw invalid('A disk cannot shrink');
      return begin(request, { type: 'resize', zone, target: disk }, () => {
        disk.sizeGb = request.body!.sizeGb;
      });
    },
    createSnapshot(disk, request, zone) {
      const body = request.body!;
      checkName(body.name);
      checkLabels(body.labels);
      if (snapshots.has(body.name))
        throw new Refused(409, 'alreadyExists', `The resource '${body.name}' already exists`);
      const snapshot: Resource = {
        ...(body as Resource),
        sourceDisk: disk.selfLink,
        status: 'CREATING',
        creationTimestamp: new Date().toISOString(),
      };
      snapshots.set(body.name, snapshot);
      return begin(
        request,
        { type: 'createSnapshot', zone, target: disk },
        () => {
          snapshot.status = 'READY';
        },
        () => {
          snapshots.delete(body.name);
        },
      );
    },
  };

  function deleteInstance(instance: Resource, request: Request, zone: string): Body {
    instance.status = 'STOPPING';
    return begin(request, { type: 'delete', zone, target: instance, ms: deletionMs }, () => {
      detachAll(instance);
      instances.delete(`${zone}/${instance.name}`);
    });
  }
  function deleteDisk(disk: Resource, request: Request, zone: string): Body {
    if (isUsed(disk))
      throw new Refused(
        400,
        'resourceInUseByAnotherResource',
        `The disk '${disk.name}' is already being used`,
      );
    disk.status = 'DELETING';
    return begin(request, { type: 'delete', zone, target: disk }, () => {
      disks.delete(`${zone}/${disk.name}`);
    });
  }

  function matches(filter: string | null): (resource: Body) => boolean {
    const tests = [...(filter ?? '').matchAll(/\(([^)]*)\)/g)].map(([, text]) => {
      const label = /^labels\.([a-z0-9_-]+) = "([a-z0-9_-]*)"$/.exec(text!);
      if (label) return (each: Body) => each.labels?.[label[1]!] === label[2];
      const target = /^targetId = (\d+)$/.exec(text!);
      if (target) return (each: Body) => each.targetId === target[1];
      throw invalid(`Invalid list filter expression: ${text}`);
    });
    return (resource) => tests.every((test) => test(resource));
  }

  /** In the order of names: what is deleted between two pages shifts nothing. */
  function page({ query }: Request, all: Body[], field?: string): Body {
    const keyOf = ({ zone = '', name }: Body) => `${zone} ${name}`;
    const after = query.get('pageToken') ?? '';
    const found = all
      .filter(matches(query.get('filter')))
      .filter((each) => keyOf(each) > after)
      .sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1));
    const size = Math.min(maxPage, Number(query.get('maxResults') ?? maxPage));
    const items = found.slice(0, size);
    const next = size < found.length ? { nextPageToken: keyOf(items.at(-1)!) } : {};
    if (field === undefined) return { items, ...next };
    const byZone = Map.groupBy(items, ({ zone }) => `zones/${last(zone)}`);
    const empty = { 'zones/nowhere-a': { warning: { code: 'NO_RESULTS_ON_PAGE' } } };
    return {
      items: {
        ...empty,
        ...Object.fromEntries([...byZone].map(([zone, each]) => [zone, { [field]: each }])),
      },
      ...next,
    };
  }

  function inZone(request: Request, zone: string, kind: string, name?: string, verb?: string): Body {
    if (!zones.includes(zone)) throw notFound(`zones/${zone}`);
    const { method } = request;
    const key = `${zone}/${name}`;
    if (kind === 'operations') {
      if (name !== undefined) return operations.get(name) ?? fail(notFound(name));
      const own = [...operations.values()].filter((each) => each.zone?.endsWith(zone));
      return {
        items: own
          .reverse()
          .filter(matches(request.query.get('filter')))
          .slice(0, 20),
      };
    }
    if (kind === 'machineTypes') return machineTypes[name!] ?? fail(notFound(name!));
    if (kind === 'instances') {
      if (name === undefined) return insertInstance(request, zone);
      const instance = get(instances, key);
      if (verb === 'serialPort') {
        if (instance.status === 'PROVISIONING') throw new Refused(400, 'resourceNotReady', 'not ready');
        return { contents: (consoles.get(key) ?? '').slice(Number(request.query.get('start'))) };
      }
      if (verb !== undefined) return (instanceCalls[verb] ?? fail(notFound(verb)))(instance, request, zone);
      return method === 'DELETE' ? deleteInstance(instance, request, zone) : instance;
    }
    if (kind !== 'disks') throw notFound(kind);
    if (name === undefined) {
      const disk = makeDisk(zone, request.body!);
      return begin(
        request,
        { type: 'insert', zone, target: disk },
        () => {
          if (disk.status === 'CREATING') disk.status = 'READY';
        },
        () => {
          disks.delete(`${zone}/${disk.name}`);
        },
      );
    }
    const disk = get(disks, key);
    if (verb !== undefined) return (diskCalls[verb] ?? fail(notFound(verb)))(disk, request, zone);
    return method === 'DELETE' ? deleteDisk(disk, request, zone) : disk;
  }

  function global(request: Request, kind: string, name?: string): Body {
    const { method } = request;
    if (kind === 'operations') return operations.get(name!) ?? fail(notFound(name!));
    if (kind === 'firewalls') {
      if (method === 'GET') return get(firewalls, name!);
      const rule = request.body as Resource;
      checkName(rule.name);
      if (firewalls.has(rule.name)) throw new Refused(409, 'alreadyExists', 'The rule already exists');
      firewalls.set(rule.name, rule);
      return begin(request, { type: 'insert' }, undefined, () => firewalls.delete(rule.name));
    }
    if (kind !== 'snapshots') throw notFound(kind);
    if (name === undefined) return page(request, [...snapshots.values()]);
    const snapshot = get(snapshots, name);
    if (method !== 'DELETE') return snapshot;
    return begin(request, { type: 'delete' }, () => snapshots.delete(name));
  }

  function route(request: Request): Body {
    const parts = request.path.split('/').slice(3).map(decodeURIComponent);
    if (request.path.startsWith('/compute/v1/projects/debian-cloud/global/images/family/debian-12'))
      return {
        name: 'debian-12-bookworm',
        selfLink: 'https://fake/debian-12',
        diskSizeGb: '10',
        architecture: architecture(),
      };
    const [, owner, scope = '', a = '', b, c, d] = parts;
    if (owner !== project) throw notFound(request.path);
    if (scope === 'aggregated') {
      const all = { instances, disks }[a] ?? fail(notFound(a));
      return page(request, [...all.values()], a);
    }
    if (scope === 'global') return global(request, a, b);
    if (scope !== 'zones') throw notFound(request.path);
    if (a === '')
      return page(request, [
        ...zones.map((name) => ({ name, region: `${root}/regions/${region}`, status: 'UP' })),
        { name: 'elsewhere1-a', region: `${root}/regions/elsewhere1`, status: 'UP' },
      ]);
    return inZone(request, a, b ?? '', c, d);
  }

  function handle(request: Request): Answer {
    try {
      const { refusal, query, method } = request;
      if (!request.isAuthorized) throw new Refused(401, 'authError', 'Invalid Credentials');
      if (refusal?.of === 'call') throw new Refused(refusal.status, refusal.reason, 'injected by the test');
      const requestId = query.get('requestId');
      if (method === 'GET') return { status: 200, body: route(request) };
      if (!requestId || !uuidPattern.test(requestId)) throw invalid(`Invalid requestId: ${requestId}`);
      const body = byRequest.get(requestId) ?? route(request);
      byRequest.set(requestId, body);
      return { status: 200, body };
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      const { status, reason, message } = error;
      return { status, body: { error: { code: status, message, errors: [{ reason, message }] } } };
    }
  }

  return {
    handle,
    zones,
    instances: () => [...instances.values()],
    disks: () => [...disks.values()],
    snapshots: () => [...snapshots.values()],
    firewalls: () => [...firewalls.values()],
    /** As the guest writes to its console. */
    write(zone: string, name: string, text: string) {
      consoles.set(`${zone}/${name}`, (consoles.get(`${zone}/${name}`) ?? '') + text);
    },
    /** A machine that ends without a call: its guest shut down, its spot machine was reclaimed, its host failed. */
    end(zone: string, name: string, type: 'guestTerminate' | 'preempted' | 'hostError') {
      const instance = instances.get(`${zone}/${name}`);
      if (instance?.status !== 'RUNNING') return;
      instance.status = 'TERMINATED';
      record(`compute.instances.${type}`, zone, instance);
    },
    /** As someone does in the console of Google Cloud. */
    removeDisk: (zone: string, name: string) => void disks.delete(`${zone}/${name}`),
    removeInstance(zone: string, name: string) {
      const instance = instances.get(`${zone}/${name}`);
      if (instance) detachAll(instance);
      instances.delete(`${zone}/${name}`);
    },
  };
}

const architecture = () => (process.arch === 'arm64' ? 'ARM64' : 'X86_64');

function fail(error: Error): never {
  throw error;
}
