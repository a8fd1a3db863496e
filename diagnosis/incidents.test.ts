import { describe, expect, test } from 'vitest';
import type { BuildEvent, Evidence, SessionEvent } from './evidence.ts';
import { findIncidents, rules } from './incidents.ts';
import { between, embedded, evidenceOf, gap, idle, leg, second, tokyo } from './testing.ts';

const build = (changes: Partial<BuildEvent>): BuildEvent => ({
  transition: 'stop',
  restart: false,
  requestedAt: second(100),
  finishedAt: second(106),
  by: 'ada',
  reason: '',
  policy: null,
  endCause: null,
  ...changes,
});
const ended = (seconds: number, reason: string): SessionEvent => ({
  kind: 'ended',
  at: second(seconds),
  reason,
});
const slow = between(200, 240);
const udp = { kind: 'direct-udp', via: '192.0.2.7:40000' } as const;

/** Recordings with the cause that a person who knows everything would name. */
const labelled: [title: string, cause: string, sentence: string, evidence: Evidence][] = [
  [
    'a laptop was closed and opened again',
    'client-slept',
    '94 s without a connection: this machine slept for 90 s; resumed through tokyo.',
    evidenceOf({
      events: [{ kind: 'slept', at: second(190), ms: 90_000 }, ...gap({ from: 100, to: 194, silent: 91 })],
    }),
  ],
  [
    'a laptop slept for a moment, and its connection survived',
    'client-slept',
    'No answer for 12 s: this machine slept for 12 s.',
    evidenceOf({ events: [{ kind: 'slept', at: second(123), ms: 12_000 }] }),
  ],
  [
    'a laptop was opened in another network',
    'client-slept',
    '98 s without a connection: this machine slept for 90 s; resumed through tokyo.',
    evidenceOf({
      events: [
        { kind: 'slept', at: second(190), ms: 90_000 },
        { kind: 'network-changed', at: second(191) },
        ...gap({ from: 100, to: 198, silent: 91 }),
      ],
    }),
  ],
  [
    'the Wi-Fi changed',
    'client-network-changed',
    '4 s without a connection: this machine changed its network; resumed through tokyo.',
    evidenceOf({
      events: [{ kind: 'network-changed', at: second(101) }, ...gap({ from: 100, to: 104, silent: 1 })],
    }),
  ],
  [
    'the Wi-Fi changed, which was noticed when the session had already continued',
    'client-network-changed',
    '2.1 s without a connection: this machine changed its network; resumed through tokyo.',
    evidenceOf({
      events: [...gap({ from: 100, to: 102.1, silent: 1.7 }), { kind: 'network-changed', at: second(102.3) }],
    }),
  ],
  [
    'packets were lost on the way to the satellite',
    'client-network-lossy',
    'Slow for 40 s (720 ms instead of 24 ms): the network between this machine and the satellite lost or delayed packets.',
    evidenceOf({
      windows: (seconds) => (slow(seconds) ? { toSatellite: leg(580), toAgent: leg(600) } : {}),
    }),
  ],
  [
    'packets were lost on a direct path, which has no satellite',
    'client-network-lossy',
    'Slow for 40 s (720 ms instead of 24 ms): the network between this machine and the workspace lost or delayed packets.',
    evidenceOf({
      windows: (seconds) => ({
        path: udp,
        toSatellite: slow(seconds) ? leg(580) : leg(10),
        satelliteToAgent: null,
        toAgent: slow(seconds) ? leg(600) : leg(24),
      }),
    }),
  ],
  [
    'an answer was late because packets to the satellite were lost',
    'client-network-lossy',
    'No answer for 3 s: the network between this machine and the satellite lost or delayed packets.',
    evidenceOf({
      windows: (seconds) =>
        seconds === 200
          ? { toSatellite: leg(10, { p95: 2_900, unanswered: 2 }), toAgent: leg(24, { p95: 3_000 }) }
          : {},
      events: [{ kind: 'stalled', at: second(206), path: tokyo, ms: 3_000 }],
    }),
  ],
  [
    'a third of the packets was lost, and the whole waited longer than its part',
    'client-network-lossy',
    'Slow for 40 s (1.4 s instead of 24 ms): the network between this machine and the satellite lost or delayed packets.',
    evidenceOf({
      windows: (seconds) =>
        slow(seconds) ? { toSatellite: leg(230, { p95: 490 }), toAgent: leg(630, { p95: 1_400 }) } : {},
    }),
  ],
  [
    'both networks lost packets, and the satellite was not busy',
    'client-network-lossy',
    'Slow for 40 s (2.1 s instead of 24 ms): the network between this machine and the satellite lost or delayed packets.',
    evidenceOf({
      windows: (seconds) =>
        slow(seconds)
          ? {
              toSatellite: leg(740, { p95: 750 }),
              satelliteToAgent: leg(250, { p95: 910 }),
              toAgent: leg(970, { p95: 2_100 }),
            }
          : {},
      around: {
        satellites: [190, 205, 220, 235].map((seconds) => ({
          ...{ satellite: 'tokyo', at: second(seconds), ms: 15_000, loopDelayMs: 28 },
        })),
      },
    }),
  ],
  [
    'the machine had no network at all',
    'client-network-lossy',
    '35 s without a connection: this machine had no working network; resumed through tokyo.',
    evidenceOf({
      events: [
        ...gap({ from: 100, to: 135, silent: 15 }),
        { kind: 'server-unreachable', at: second(135), ms: 20_000 },
      ],
    }),
  ],
  [
    'nothing arrived from the satellite for a while, and then it did again',
    'client-network-lossy',
    '20 s without a connection: nothing arrived from tokyo; resumed through tokyo.',
    evidenceOf({ events: gap({ from: 100, to: 120, silent: 15 }) }),
  ],
  [
    'UDP was blocked while the session ran on it',
    'udp-blocked',
    '5 s without a connection: the network stopped passing UDP; resumed through tokyo.',
    evidenceOf({
      windows: (seconds) => (seconds < 100 ? { path: udp, toSatellite: null } : {}),
      events: [
        ...gap({ from: 100, to: 105, silent: 4, path: udp, reason: 'path-lost' }),
        { kind: 'udp-failed', at: second(125), reason: 'path-unreachable' },
      ],
    }),
  ],
  [
    'UDP was blocked, and is not looked for again yet',
    'udp-blocked',
    '4.7 s without a connection: the network stopped passing UDP; resumed through tokyo.',
    evidenceOf({
      windows: (seconds) => (seconds < 100 ? { path: udp, toSatellite: null } : {}),
      events: gap({ from: 100, to: 104.7, silent: 4.5, path: udp, reason: 'path-lost' }),
    }),
  ],
  [
    'a proxy ends connections after a minute',
    'proxy-interference',
    '1.5 s without a connection: something in between closes connections after 60 s; resumed through tokyo.',
    evidenceOf({
      events: [
        ...gap({ from: 60, to: 61.5 }),
        ...gap({ from: 121.5, to: 123 }),
        ...gap({ from: 183, to: 184.5 }),
      ],
    }),
  ],
  [
    'the satellite was restarted, and said so',
    'satellite-restarted',
    '3 s without a connection: the satellite tokyo was restarted; resumed through embedded.',
    evidenceOf({ events: gap({ from: 100, to: 103, reason: 'satellite-restarted', resumedOn: embedded }) }),
  ],
  [
    'the server was restarted, with the satellite in it',
    'satellite-restarted',
    '3 s without a connection: the server was restarted, with the satellite in it; resumed through embedded.',
    evidenceOf({
      events: gap({ from: 100, to: 103, path: embedded, reason: 'satellite-restarted', resumedOn: embedded }),
    }),
  ],
  [
    'the satellite was killed',
    'satellite-restarted',
    '6 s without a connection: the satellite tokyo was restarted; resumed through tokyo.',
    evidenceOf({
      events: gap({ from: 100, to: 106 }),
      around: { satelliteEvents: [{ kind: 'started', satellite: 'tokyo', at: second(105) }] },
    }),
  ],
  [
    'the satellite was too busy',
    'satellite-overloaded',
    'Slow for 40 s (780 ms instead of 24 ms): the satellite tokyo was too busy.',
    evidenceOf({
      windows: (seconds) =>
        slow(seconds) ? { toSatellite: leg(300), satelliteToAgent: leg(320), toAgent: leg(650) } : {},
      around: { satellites: [{ satellite: 'tokyo', at: second(205), ms: 15_000, loopDelayMs: 310 }] },
    }),
  ],
  [
    'the satellite was too busy to report it',
    'satellite-overloaded',
    'Slow for 40 s (400 ms instead of 24 ms): the satellite tokyo was too busy.',
    evidenceOf({
      windows: (seconds) =>
        slow(seconds)
          ? {
              toSatellite: leg(60, { p95: 340 }),
              satelliteToAgent: leg(60, { p95: 220 }),
              toAgent: leg(140, { p95: 400 }),
            }
          : {},
    }),
  ],
  [
    'the satellite was too busy, and packets to the workspace waited longest',
    'satellite-overloaded',
    'Slow for 40 s (821 ms instead of 24 ms): the satellite tokyo was too busy.',
    evidenceOf({
      windows: (seconds) =>
        slow(seconds)
          ? {
              toSatellite: leg(113, { p95: 213 }),
              satelliteToAgent: leg(301, { p95: 610 }),
              toAgent: leg(412, { p95: 821 }),
            }
          : {},
      around: { satellites: [{ satellite: 'tokyo', at: second(205), ms: 15_000, loopDelayMs: 484 }] },
    }),
  ],
  [
    'the network between satellite and workspace failed',
    'satellite-agent-network',
    '9 s without a connection: the network between tokyo and the workspace failed; resumed through embedded.',
    evidenceOf({ events: gap({ from: 100, to: 109, reason: 'agent-lost', resumedOn: embedded }) }),
  ],
  [
    'the network between satellite and workspace was slow',
    'satellite-agent-network',
    'Slow for 40 s (768 ms instead of 24 ms): the network between tokyo and the workspace lost or delayed packets.',
    evidenceOf({
      windows: (seconds) => (slow(seconds) ? { satelliteToAgent: leg(610), toAgent: leg(640) } : {}),
    }),
  ],
  [
    'the network between satellite and workspace lost a third of the packets',
    'satellite-agent-network',
    'No answer 3 times within 21 s, for up to 7.6 s: the network between tokyo and the workspace lost or delayed packets.',
    evidenceOf({
      windows: (seconds) =>
        seconds === 200
          ? { satelliteToAgent: leg(1_460, { p95: 1_900 }), toAgent: leg(2_000, { p95: 2_560 }) }
          : seconds === 210
            ? { satelliteToAgent: null, toAgent: leg(7_600, { p95: 7_600, count: 1, unanswered: 9 }) }
            : {},
      events: [
        { kind: 'stalled', at: second(202), path: tokyo, ms: 1_800 },
        { kind: 'stalled', at: second(208), path: tokyo, ms: 2_560 },
        { kind: 'stalled', at: second(221), path: tokyo, ms: 7_600 },
      ],
    }),
  ],
  [
    'the agent was killed',
    'agent-restarted',
    '7 s without a connection: the agent of the workspace was restarted; resumed through tokyo.',
    evidenceOf({
      events: gap({ from: 100, to: 107, reason: 'agent-lost' }),
      around: { agentStarts: [second(104)] },
    }),
  ],
  [
    'the session could not survive the restart of the agent',
    'agent-restarted',
    'The session ended: the agent of the workspace was restarted.',
    evidenceOf({
      events: [gap({ from: 100, to: 107, reason: 'agent-lost' })[0]!, ended(107, 'agent-restarted')],
      around: { agentStarts: [second(104)] },
    }),
  ],
  [
    'the workspace had no CPU time',
    'workspace-cpu-starved',
    'Slow for 40 s (768 ms instead of 24 ms): the workspace had too little CPU time.',
    evidenceOf({
      windows: (seconds) => (slow(seconds) ? { satelliteToAgent: leg(500), toAgent: leg(640) } : {}),
      workspace: (seconds) => (slow(seconds) ? { host: { ...idle, throttledPercent: 70 } } : {}),
    }),
  ],
  [
    'the workspace had no CPU time, and once no answer for four seconds',
    'workspace-cpu-starved',
    'Slow for 40 s (936 ms instead of 24 ms): the workspace had too little CPU time.',
    evidenceOf({
      windows: (seconds) =>
        slow(seconds) ? { satelliteToAgent: leg(500, { p95: 800 }), toAgent: leg(640, { p95: 936 }) } : {},
      workspace: (seconds) =>
        slow(seconds) ? { host: { ...idle, cpuWaitPercent: 98, loopDelayMs: 300 } } : {},
      events: [{ kind: 'stalled', at: second(235), path: tokyo, ms: 4_000 }],
    }),
  ],
  [
    'this machine had no CPU time, and a satellite that was late for a moment',
    'client-overloaded',
    'No answer 2 times within 5 s, for up to 2.5 s: this machine was too busy to handle the connection in time.',
    evidenceOf({
      windows: (seconds) =>
        seconds === 200
          ? {
              toSatellite: leg(600, { p95: 1_000 }),
              toAgent: leg(800, { p95: 1_200 }),
              host: { ...idle, cpuWaitPercent: 90, loopDelayMs: 600 },
            }
          : {},
      events: [
        { kind: 'stalled', at: second(205), path: tokyo, ms: 2_000 },
        { kind: 'stalled', at: second(208), path: tokyo, ms: 2_500 },
      ],
      around: { satellites: [{ satellite: 'tokyo', at: second(200), ms: 15_000, loopDelayMs: 151 }] },
    }),
  ],
  [
    'this machine had no CPU time',
    'client-overloaded',
    'Slow for 40 s (768 ms instead of 24 ms): this machine was too busy to handle the connection in time.',
    evidenceOf({
      windows: (seconds) =>
        slow(seconds)
          ? {
              toSatellite: leg(600),
              toAgent: leg(640),
              host: { ...idle, cpuWaitPercent: 60, loopDelayMs: 400 },
            }
          : {},
    }),
  ],
  [
    'the workspace was killed for its memory, and started again',
    'workspace-out-of-memory',
    'The session ended: the workspace ran out of memory and was restarted.',
    evidenceOf({
      events: [gap({ from: 98, to: 0, reason: 'agent-lost' })[0]!, ended(115, 'agent-restarted')],
      around: {
        builds: [build({ transition: 'start', restart: true, by: 'cde', endCause: 'out-of-memory' })],
        agentStarts: [second(110)],
      },
    }),
  ],
  [
    'a program of the workspace was killed for its memory, and the agent with it',
    'workspace-out-of-memory',
    '8 s without a connection: the workspace ran out of memory; resumed through tokyo.',
    evidenceOf({
      events: gap({ from: 100, to: 108, reason: 'agent-lost' }),
      workspace: (seconds) => (seconds === 100 ? { outOfMemoryKills: 1 } : {}),
      around: { agentStarts: [second(104)] },
    }),
  ],
  [
    'the node stopped answering',
    'node-lost',
    'The session ended: the machine below the workspace stopped answering.',
    evidenceOf({
      events: [gap({ from: 90, to: 0, reason: 'agent-lost' })[0]!, ended(115, 'agent-restarted')],
      around: { builds: [build({ transition: 'start', restart: true, by: 'cde', endCause: 'node-lost' })] },
    }),
  ],
  [
    'somebody stopped the workspace',
    'workspace-stopped',
    'The session ended: the workspace was stopped by bob.',
    evidenceOf({
      events: [gap({ from: 102, to: 0, reason: 'agent-lost' })[0]!, ended(104, 'workspace-stopped')],
      around: { builds: [build({ by: 'bob', reason: 'Maintenance.' })] },
    }),
  ],
  [
    'a policy stopped the workspace',
    'workspace-stopped',
    'The session ended: the workspace was stopped by its idle policy.',
    evidenceOf({
      events: [ended(104, 'workspace-stopped')],
      around: { builds: [build({ by: 'cde', policy: 'idle' })] },
    }),
  ],
  [
    'somebody stopped the workspace while the laptop was asleep',
    'workspace-stopped',
    'The session ended: the workspace was stopped by ada.',
    evidenceOf({
      events: [
        { kind: 'slept', at: second(120), ms: 23_000 },
        gap({ from: 121, to: 0, reason: 'satellite-lost' })[0]!,
        ended(127, 'workspace-stopped'),
      ],
      around: { builds: [build({})] },
    }),
  ],
  [
    'the server stood still, with the satellite inside it',
    'server-unreachable',
    '17 s without a connection: the server did not respond; resumed through embedded.',
    evidenceOf({
      windows: () => ({ path: embedded }),
      events: gap({ from: 100, to: 117, silent: 16, path: embedded, resumedOn: embedded }),
      around: { satellites: [{ satellite: 'embedded', at: second(99), ms: 12_000, loopDelayMs: 11_000 }] },
    }),
  ],
  [
    'this machine was offline, and the satellite inside the server ran',
    'client-network-lossy',
    '17 s without a connection: this machine had no working network; resumed through embedded.',
    evidenceOf({
      windows: () => ({ path: embedded }),
      events: [
        ...gap({ from: 100, to: 117, silent: 16, path: embedded, resumedOn: embedded }),
        { kind: 'server-unreachable', at: second(118), ms: 8_000 },
      ],
      around: {
        satellites: [90, 105, 120].map((seconds) => ({
          ...{ satellite: 'embedded', at: second(seconds), ms: 15_000, loopDelayMs: 3 },
        })),
      },
    }),
  ],
  [
    'the server was unreachable, with the satellite inside it',
    'server-unreachable',
    '12 s without a connection: the server could not be reached; resumed through embedded.',
    evidenceOf({
      windows: () => ({ path: embedded }),
      events: [
        ...gap({ from: 100, to: 112, path: embedded, resumedOn: embedded }),
        { kind: 'server-unreachable', at: second(112), ms: 11_000 },
      ],
    }),
  ],
  [
    'the server was restarted half a minute after the machine woke',
    'server-unreachable',
    '30 s without a connection: the server could not be reached; resumed through embedded.',
    evidenceOf({
      windows: () => ({ path: embedded }),
      events: [
        { kind: 'slept', at: second(70), ms: 20_000 },
        ...gap({ from: 100, to: 130, path: embedded, resumedOn: embedded }),
        { kind: 'server-unreachable', at: second(130), ms: 28_000 },
      ],
    }),
  ],
  [
    'the server refused to renew the ticket',
    'ticket-expired',
    'The session ended: the server refused to continue it.',
    evidenceOf({ events: [ended(104, 'ticket-refused')] }),
  ],
];

describe('each cause is named from a recording', () => {
  test.each(labelled)('%s', (_title, cause, sentence, evidence) => {
    const [incident] = findIncidents(evidence).slice(-1);
    expect(incident).toMatchObject({ cause, summary: sentence });
    expect(incident!.evidence.join()).not.toBe('');
    expect(incident!.ruledOut).toEqual([]);
  });
  test('every cause has a recording', () => {
    const seen = new Set(labelled.map(([, cause]) => cause));
    expect(rules.filter(({ cause }) => !seen.has(cause))).toEqual([]);
  });
});

describe('what is no incident', () => {
  test('a quiet session', () => expect(findIncidents(evidenceOf({}))).toEqual([]));
  test('a session that its user ended', () => {
    const evidence = evidenceOf({ events: [{ kind: 'ended', at: second(300), reason: null }] });
    expect(findIncidents(evidence)).toEqual([]);
  });
  test('a gap that is too short to be noticed', () => {
    expect(findIncidents(evidenceOf({ events: gap({ from: 100, to: 100.6 }) }))).toEqual([]);
  });
  test('a sleep of a session that nobody uses', () => {
    const events: SessionEvent[] = [{ kind: 'slept', at: second(300), ms: 120_000 }];
    const windows = (seconds: number) => (seconds < 100 ? {} : null);
    expect(findIncidents(evidenceOf({ windows, events }))).toEqual([]);
  });
  test('one late answer', () => {
    const windows = (seconds: number) => (seconds === 200 ? { toAgent: leg(24, { max: 900 }) } : {});
    expect(findIncidents(evidenceOf({ windows }))).toEqual([]);
  });
  test('a link that is always slow', () => {
    const windows = () => ({ toSatellite: leg(280), toAgent: leg(300) });
    expect(findIncidents(evidenceOf({ windows }))).toEqual([]);
  });
  test('what waits behind a download, and what catches up after a drop', () => {
    const events: SessionEvent[] = [
      { kind: 'stalled', at: second(150), path: tokyo, ms: 2_500 },
      ...gap({ from: 200, to: 203, reason: 'satellite-restarted' }),
      { kind: 'stalled', at: second(207), path: tokyo, ms: 3_600 },
    ];
    const windows = (seconds: number) => (between(140, 180)(seconds) ? { bytes: 10_000_000 } : {});
    expect(findIncidents(evidenceOf({ windows, events })).map(({ kind }) => kind)).toEqual(['drop']);
  });
  test('keys that wait behind a download of their own', () => {
    const windows = (seconds: number) =>
      between(200, 300)(seconds) ? { toAgent: leg(150), toSatellite: leg(120), bytes: 40_000_000 } : {};
    expect(findIncidents(evidenceOf({ windows }))).toEqual([]);
  });
});

describe('a cause that others may still contradict is named with less confidence', () => {
  const late = (seconds: number) =>
    slow(seconds) ? { satelliteToAgent: leg(610), toAgent: leg(640) } : seconds < 240 ? {} : null;
  test('until the workspace has reported: it can have been too busy', () => {
    const reported = (until: number) =>
      evidenceOf({ windows: late, workspace: (seconds) => (seconds < until ? {} : null) });
    const [early] = findIncidents(reported(210));
    expect(early).toMatchObject({ cause: 'satellite-agent-network', confidence: 0.7 });
    const [known] = findIncidents(reported(250));
    expect(known).toMatchObject({ cause: 'satellite-agent-network', confidence: 0.85 });
  });
  test('until the server has reported that it ran: the network can have failed', () => {
    const events = [
      ...gap({ from: 100, to: 117, silent: 16, path: embedded, resumedOn: embedded }),
      { kind: 'server-unreachable' as const, at: second(118), ms: 8_000 },
    ];
    const [incident] = findIncidents(evidenceOf({ windows: () => ({ path: embedded }), events }));
    expect(incident).toMatchObject({ cause: 'server-unreachable', confidence: 0.7 });
  });
});

test('what happens to the workspace after the session has continued is no cause', () => {
  const [incident] = findIncidents(
    evidenceOf({
      events: gap({ from: 100, to: 102 }),
      around: {
        builds: [
          build({
            ...{ transition: 'start', restart: true, by: 'cde', endCause: 'out-of-memory' },
            ...{ requestedAt: second(115), finishedAt: second(116) },
          }),
        ],
        agentStarts: [second(116)],
      },
    }),
  );
  expect(incident).toMatchObject({ cause: 'unknown' });
});

describe('an unknown cause', () => {
  test('is said, with what was ruled out', () => {
    const windows = (seconds: number) => (slow(seconds) ? { toAgent: leg(640) } : {});
    const [incident] = findIncidents(evidenceOf({ windows }));
    expect(incident).toMatchObject({ cause: 'unknown', segment: 'unknown', confidence: 0 });
    expect(incident!.summary).toBe('Slow for 40 s (768 ms instead of 24 ms): the cause is unknown.');
    expect(incident!.ruledOut).toEqual(
      expect.arrayContaining([
        'This machine had CPU time to spare.',
        'The workspace had CPU time to spare.',
        'Round trips to the satellite were as usual.',
        'Round trips between satellite and workspace were as usual.',
      ]),
    );
  });
  test('of a satellite that fell silent: it can be the satellite or the way to it', () => {
    const events = gap({ from: 100, to: 120, silent: 15, resumedOn: embedded });
    expect(findIncidents(evidenceOf({ events }))[0]!.cause).toBe('unknown');
  });
  test('of a drop that nothing explains', () => {
    const [incident] = findIncidents(evidenceOf({ events: gap({ from: 100, to: 103 }) }));
    expect(incident!.cause).toBe('unknown');
  });
});

test('an incident that continues has no end', () => {
  const [lost] = gap({ from: 590, to: 0, reason: 'satellite-restarted' });
  const [incident] = findIncidents(evidenceOf({ events: [lost!] }));
  expect(incident).toMatchObject({
    to: null,
    summary: 'No connection for 10 s so far: the satellite tokyo was restarted.',
  });
});
