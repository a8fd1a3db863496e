import { networkInterfaces } from 'node:os';
import type { Check } from '@cde/api/checks.ts';
import type { Finding } from '@cde/api/findings.ts';
import { checkDns } from '@cde/tunnel/netcheck/dns-check.ts';
import { checkEndpoint, type EndpointReport } from '@cde/tunnel/netcheck/endpoint-check.ts';
import { configuredProxy } from '@cde/tunnel/network/proxy.ts';
import type { Context } from '../../command/context.ts';
import { configFile } from '../../config/config.ts';
import { duration } from '../../output/times.ts';
import { modeOf } from './files.ts';
import { findingOf, makeFinding } from './finding.ts';

/** A server that takes longer is of no use. */
const serverTimeoutMs = 5_000;
/** Certificates and tickets bear a smaller difference. */
const maxClockDifferenceSeconds = 60;

/** From the machine's network to the server. */
export function networkChecks(context: Context): Check[] {
  return [
    { name: 'network', run: () => checkNetwork(context) },
    { name: 'configuration', dependsOn: ['network'], run: () => checkConfiguration(context) },
    { name: 'dns', dependsOn: ['configuration'], run: (signal) => checkName(context, signal) },
    { name: 'server', dependsOn: ['dns'], run: (signal) => checkServer(context, signal) },
  ];
}

/** The server's URL; null if none is chosen or the configuration cannot be read, which is another finding. */
function urlOf(context: Context): string | null {
  try {
    return context.server().url;
  } catch {
    return null;
  }
}

function checkNetwork(context: Context): Finding[] {
  const url = urlOf(context);
  const isLocal = url !== null && /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(new URL(url).hostname);
  if (isLocal && hasAddress(true)) return [];
  if (hasAddress(false)) return [];
  return [
    makeFinding('error', 'no-network', 'This machine is not connected to any network.', {
      detail: 'It has no address but those of itself.',
      hint: 'Connect to a network, then run cde doctor again.',
    }),
  ];
}

function hasAddress(internal: boolean): boolean {
  return Object.values(networkInterfaces()).some((all) =>
    all?.some((each) => each.internal === internal && !/^(169\.254\.|fe[89ab])/i.test(each.address)),
  );
}

function checkConfiguration(context: Context): Finding[] {
  try {
    context.server();
  } catch (error) {
    return [findingOf(error)];
  }
  const file = configFile(context.env);
  const mode = modeOf(file);
  return mode !== null && (mode & 0o077) !== 0
    ? [
        makeFinding('warning', 'config-readable', `Others on this machine can read your tokens in ${file}.`, {
          hint: `Run: chmod 600 ${file}`,
        }),
      ]
    : [];
}

async function checkName(context: Context, signal: AbortSignal): Promise<Finding[]> {
  const { url } = context.server();
  // Through a proxy, the proxy looks names up.
  if (url.startsWith('https:') && configuredProxy()) return [];
  const { lookups, resolvers } = await checkDns([url], { signal });
  const failed = lookups.find(({ error }) => error !== null);
  const silent = resolvers.filter(({ error }) => error !== null);
  const detail = silent.map(({ address, error }) => `${address}: ${error}`).join('\n');
  if (failed && (silent.length > 0 || !failed.error!.includes('ENOTFOUND')))
    return [
      makeFinding('error', 'dns-no-answer', `The name ${failed.host} cannot be looked up now.`, {
        detail: detail || failed.error!,
        hint: 'Check the network and the VPN: a resolver of this machine does not answer.',
      }),
    ];
  if (failed)
    return [
      makeFinding('error', 'dns-name-unknown', `No server is named ${failed.host}.`, {
        detail: failed.error!,
        hint: 'Check the address of the server (cde server list), and that the VPN is connected if the name is internal.',
      }),
    ];
  return silent.length > 0
    ? [
        makeFinding('warning', 'dns-resolver-silent', 'A DNS resolver of this machine does not answer.', {
          detail,
          hint: 'Programs wait for it before they ask the next one. Remove it from the configuration of the network.',
        }),
      ]
    : [];
}

async function checkServer(context: Context, signal: AbortSignal): Promise<Finding[]> {
  const { url } = context.server();
  const timeout = AbortSignal.timeout(serverTimeoutMs);
  const report = await checkEndpoint(url, { signal: AbortSignal.any([signal, timeout]) });
  return [
    ...portalFindings(report),
    ...clockFindings(report),
    ...tlsFindings(report),
    ...answerFindings(report),
  ];
}

const portalFindings = ({ portal }: EndpointReport): Finding[] =>
  portal
    ? [
        makeFinding(
          'error',
          'captive-portal',
          'This network wants you to sign in before it lets anything through.',
          {
            ...(portal.location && { detail: `It redirects to ${portal.location}` }),
            hint: 'Open any page in a browser and sign in to the network.',
          },
        ),
      ]
    : [];

function clockFindings({ clockAheadSeconds: ahead, tls }: EndpointReport): Finding[] {
  if (ahead === null || Math.abs(ahead) <= maxClockDifferenceSeconds) return [];
  const severity = tls?.trust === 'untrusted' ? 'error' : 'warning';
  return [
    makeFinding(
      severity,
      'clock-wrong',
      `The clock of this machine is ${duration(Math.abs(ahead) * 1_000)} ${ahead > 0 ? 'ahead' : 'behind'}.`,
      {
        detail:
          'It was compared with the clock of the server. With a wrong clock, certificates are rejected.',
        hint: 'Turn on the synchronization of time (NTP).',
        dependsOn: ['captive-portal'],
      },
    ),
  ];
}

function tlsFindings({ tls, url }: EndpointReport): Finding[] {
  if (!tls) return [];
  const issued = `The certificate was issued by ${tls.issuer}.`;
  if (tls.intercepted)
    return [
      makeFinding(
        tls.trust === 'untrusted' ? 'error' : 'warning',
        'tls-intercepted',
        'Something on the way to the server decrypts HTTPS.',
        {
          detail: issued,
          hint: `Ask your network team for an exception for ${new URL(url).host}. Until then, set NODE_EXTRA_CA_CERTS to the file of that certificate authority.`,
          dependsOn: ['captive-portal'],
        },
      ),
    ];
  if (tls.trust !== 'untrusted') return [];
  const isTime = /EXPIRED|NOT_YET_VALID/.test(tls.error ?? '');
  return [
    makeFinding(
      'error',
      isTime ? 'certificate-expired' : 'certificate-untrusted',
      isTime
        ? 'The certificate of the server is not valid at this time.'
        : 'The certificate of the server is not trusted.',
      {
        detail: `${issued}\nIt is valid from ${tls.validFrom} to ${tls.validTo} (${tls.error}).`,
        hint: isTime
          ? 'Ask an administrator of the server to renew it.'
          : 'If the authority is your company’s, set NODE_EXTRA_CA_CERTS to the file of its certificate.',
        dependsOn: ['captive-portal', 'clock-wrong', 'tls-intercepted'],
      },
    ),
  ];
}

function answerFindings({ url, status, error, errorCode }: EndpointReport): Finding[] {
  const dependsOn = ['captive-portal', 'certificate-expired', 'certificate-untrusted', 'tls-intercepted'];
  if (status === null) {
    const proxy = url.startsWith('https:') ? configuredProxy() : null;
    return [
      makeFinding('error', 'server-unreachable', `No answer from ${url}.`, {
        detail: `${error}${proxy ? ` (through the proxy ${proxy.place} of ${proxy.variable})` : ''}`,
        hint:
          errorCode === 'ECONNREFUSED'
            ? 'The machine answers, but no server runs at that port. Check the address, and that the server runs.'
            : 'Check the address, the firewall and the VPN.',
        dependsOn,
      }),
    ];
  }
  if (status >= 500 && status !== 503)
    return [
      makeFinding(
        'error',
        'server-unavailable',
        `A proxy in front of ${url} answers with status ${status}.`,
        {
          hint: 'The server is restarting, or does not run. Try again in a minute.',
          dependsOn,
        },
      ),
    ];
  // 503: it answers, and is draining or starting.
  if (status === 204 || status === 503) return [];
  return [
    makeFinding('error', 'not-a-cde-server', `What answers at ${url} is not a cde server.`, {
      detail: `It answered with status ${status}.`,
      hint: 'Check the address: cde server list',
      dependsOn,
    }),
  ];
}
