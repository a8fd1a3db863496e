import type { Check } from '@cde/api/checks.ts';
import type { Finding } from '@cde/api/findings.ts';
import { type NetcheckReport, type NetcheckSatellite, netcheck } from '@cde/tunnel/netcheck/netcheck.ts';
import type { Context } from '../../command/context.ts';
import { ownVersion } from '../../completion/version.ts';
import { getUser, startNetcheck } from '../../connection/endpoints.ts';
import { findingOf, makeFinding } from './finding.ts';

/** What needs a sign-in: the account, the release of the server, the satellites. */
export function accountChecks(context: Context): Check[] {
  /** One call serves two checks. */
  let asked: Promise<{ version?: string | undefined; satellites: NetcheckSatellite[] }> | undefined;
  const ask = async () => {
    asked ??= (await context.client()).call(startNetcheck);
    return asked;
  };
  return [
    {
      name: 'sign-in',
      dependsOn: ['server'],
      async run() {
        try {
          await (await context.client()).call(getUser, { params: { user: 'me' } });
          return [];
        } catch (error) {
          return [findingOf(error)];
        }
      },
    },
    {
      name: 'versions',
      dependsOn: ['sign-in'],
      run: async () => versionFindings(ownVersion(), (await ask()).version),
    },
    {
      name: 'satellites',
      dependsOn: ['sign-in'],
      async run(signal) {
        const { satellites } = await ask();
        if (satellites.length === 0)
          return [
            makeFinding('error', 'no-satellite', 'No satellite is online, so no workspace can be reached.', {
              actions: [{ kind: 'list-satellites' }],
            }),
          ];
        return satelliteFindings(await netcheck(satellites, { signal, server: context.server().url }));
      },
    },
  ];
}

function versionFindings(own: string, server: string | undefined): Finding[] {
  if (server === own) return [];
  return [
    makeFinding(
      'warning',
      'version-mismatch',
      server === undefined
        ? `The server is of an earlier release than this cde (${own}).`
        : `This cde is ${own}, and the server is ${server}.`,
      { hint: 'They work together, but not with every feature. Update the older one.' },
    ),
  ];
}

function satelliteFindings(report: NetcheckReport): Finding[] {
  const { satellites, udp, mtu, proxy } = report;
  const unreachable = satellites.filter(({ https }) => https.rttMs === null);
  const none = unreachable.length === satellites.length;
  const list = unreachable.map(({ name, https }) => `${name}: ${https.error}`).join('\n');
  return [
    ...(mtu.largePackets === false
      ? [
          makeFinding('error', 'large-packets-lost', 'Large packets are lost on the way to the server.', {
            detail: `The MTU of this machine is ${mtu.interfaceMtu ?? 'unknown'}, that of the path ${mtu.pathMtu ?? 'unknown'}.`,
            hint: 'Lower the MTU of the VPN or interface, for example to 1280.',
          }),
        ]
      : []),
    ...(unreachable.length > 0
      ? [
          makeFinding(
            none ? 'error' : 'warning',
            none ? 'satellites-unreachable' : 'satellite-unreachable',
            none
              ? 'No satellite can be reached, so no workspace can.'
              : `${unreachable.length} of ${satellites.length} satellites cannot be reached; sessions use the others.`,
            { detail: list, hint: 'More about it: cde netcheck', dependsOn: ['large-packets-lost'] },
          ),
        ]
      : []),
    ...(!udp && !none
      ? [
          makeFinding(
            'info',
            'udp-blocked',
            'UDP reaches no satellite, so sessions cannot use direct paths by UDP.',
            {
              ...(proxy && { detail: `UDP bypasses the proxy ${proxy.place}.` }),
              hint: 'Everything works without. More about it: cde netcheck',
            },
          ),
        ]
      : []),
  ];
}
