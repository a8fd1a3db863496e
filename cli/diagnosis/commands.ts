import { type Command, command } from '../command/command.ts';
import { pathOption as path } from '../ssh/path-option.ts';

const group = 'Connect:';
const workspace = { help: 'NAME or OWNER/NAME', completes: 'connectable' } as const;

export const diagnosisCommands: readonly Command[] = [
  command({
    name: 'why',
    group,
    summary: 'Say why your sessions were interrupted or slow',
    details:
      'Lists what went wrong in your own sessions, oldest first: when, for how long, what was noticeable, the cause, the ' +
      'evidence, and what to do. Sessions are recorded while they are used: round trips of each leg, changes of the path, ' +
      'sleep and network changes of your machine, never what is typed or sent. An unknown cause says what was ruled out.',
    arguments: { workspace: { ...workspace, help: 'NAME or OWNER/NAME (default: all)', optional: true } },
    options: {
      since: {
        kind: 'text',
        value: 'WHEN',
        help: 'Since when: 2h, 7d, 2026-05-01 or an ISO time (default 2h)',
      },
    },
    examples: [
      ['cde why', 'in the last two hours'],
      ['cde why web --since 1d', 'one workspace, in the last day'],
      ['cde why --json | jq -r ".incidents[].cause"', 'only the causes'],
    ],
    load: () => import('./why.ts').then((m) => m.why),
  }),
  command({
    name: 'ping',
    group,
    summary: 'Measure the round trip to a workspace, by leg',
    details:
      'Opens a session and prints a line per round trip: the path, its satellite and region, the time from this machine ' +
      'to the satellite, from the satellite to the agent, and through the whole session. A direct path has one leg. ' +
      'At the end, or at Ctrl-C, prints loss, percentiles, and what stands in the way of a better path. Does not start a ' +
      'stopped workspace and does not count as activity.',
    arguments: { workspace },
    options: {
      count: {
        kind: 'number',
        short: 'c',
        value: 'N',
        help: 'Stop after N round trips (default: Ctrl-C stops)',
      },
      interval: {
        kind: 'text',
        short: 'i',
        value: 'SECONDS',
        help: 'Time from one round trip to the next, at least 0.2 (default 1)',
      },
      path,
    },
    examples: [
      ['cde ping web', 'until Ctrl-C'],
      ['cde ping web --count 20 --interval 0.2', 'a quick measurement'],
      ['cde ping web --path relay', 'through a satellite only'],
      [
        'cde ping web --count 5 --json | jq -c \'select(.event == "summary")\'',
        'for programs: one object per line',
      ],
    ],
    load: () => import('./ping.ts').then((m) => m.ping),
  }),
  command({
    name: 'doctor',
    group,
    summary: 'Find out what keeps cde from working on this machine',
    details:
      'Checks the network, the configuration, DNS, the server, the sign-in, versions, satellites, your workspaces, ssh and ' +
      'editors. What cannot work because of an earlier fault is skipped, so the first thing to fix is what it prints. With ' +
      'WORKSPACE it also opens a session with it. Changes nothing. Exits with 0 if nothing is wrong but warnings.',
    arguments: { workspace: { ...workspace, optional: true } },
    examples: [
      ['cde doctor', 'check everything'],
      ['cde doctor web', 'and whether a session with web opens'],
      ["cde doctor --json | jq -r '.findings[].code'", 'for programs'],
    ],
    load: () => import('./doctor/doctor.ts').then((m) => m.doctor),
  }),
  command({
    name: 'support-bundle',
    group,
    summary: 'Collect what support needs to know in one archive, without secrets',
    details:
      'Runs `cde doctor` and `cde netcheck`, and adds versions, the configuration of cde and ssh, your workspaces and, of ' +
      'WORKSPACE, its activity, ports, builds and the end of the last log. Writes a tar.gz of text files, from which ' +
      'tokens, passwords, keys, cookies and values of parameters are removed, prints what is inside, and sends nothing.',
    arguments: { workspace: { help: 'NAME or OWNER/NAME', completes: 'workspaces', optional: true } },
    options: {
      output: {
        kind: 'text',
        short: 'o',
        value: 'FILE',
        help: 'The archive to write (default: cde-support-TIME.tar.gz here)',
        completes: 'files',
      },
    },
    examples: [
      ['cde support-bundle', 'about this machine'],
      ['cde support-bundle web -o web.tar.gz', 'and about a workspace'],
      ['tar -xzOf web.tar.gz | less', 'read it before you send it'],
    ],
    load: () => import('./bundle/bundle.ts').then((m) => m.supportBundle),
  }),
];
