import type { IncomingHttpHeaders } from 'node:http';
import { rootCertificates } from 'node:tls';
import { certificateHeader, relayPaths } from '../paths/relay-protocol.ts';
import { probeUrl } from '../selection/measure.ts';
import { makeProbeAgent, type ProbeReply, sendProbe } from './probe-request.ts';

export interface TlsReport {
  /** Who issued the certificate. */
  issuer: string;
  /** SHA-256 of the certificate. */
  fingerprint: string;
  validFrom: string;
  validTo: string;
  /**
   * `public`: by a certificate authority that everybody trusts; `private`: by one that was added to this machine or
   * process; `untrusted`: by neither, see `error`.
   */
  trust: 'public' | 'private' | 'untrusted';
  error: string | null;
  /**
   * Whether something in between decrypts the traffic. Certain if the program at the other end told which certificate it
   * has, or if the issuer is a known product; null if it cannot be told.
   */
  intercepted: boolean | null;
}

/** What answers at the address of a server or satellite. */
export interface EndpointReport {
  url: string;
  /** The HTTP status; null if there was no answer. */
  status: number | null;
  error: string | null;
  /** A code of the system or of TLS, if `error` has one. */
  errorCode: string | null;
  /** Null for http, or without a TLS handshake. */
  tls: TlsReport | null;
  /** By how many seconds this machine's clock is ahead of the other; null if unknown. */
  clockAheadSeconds: number | null;
  /** A page of the network answers instead, and asks to sign in there; where, if it says so. */
  portal: { location: string | null } | null;
}

/** Issuers that firewalls and virus scanners put into the certificates that they make up. */
const interceptors =
  /zscaler|netskope|fortinet|fortigate|palo ?alto|umbrella|sophos|blue ?coat|symantec web|mcafee web|skyhigh|forcepoint|websense|barracuda|check ?point|watchguard|sonicwall|untangle|cato networks|iboss|kaspersky|avast|avg web|eset ssl|bitdefender|mitmproxy|squid|charles proxy|fiddler|burp|portswigger/i;

export interface EndpointOptions {
  signal: AbortSignal;
  /** The path that is requested; by default that of a satellite's probe. */
  path?: string;
  /** Certificate authorities (PEM) to trust beside those of this process. */
  ca?: string;
  /** The port at which a captive portal answers without TLS; default 80. */
  httpPort?: number;
}

/** Requests a page that a server or satellite has for everybody, and looks at who answers. Never rejects. */
export async function checkEndpoint(url: string, options: EndpointOptions): Promise<EndpointReport> {
  const report: EndpointReport = {
    url,
    status: null,
    error: null,
    errorCode: null,
    tls: null,
    clockAheadSeconds: null,
    portal: null,
  };
  const target = probeUrl(url, options.path ?? relayPaths.probe);
  try {
    const reply = await request(target, options, rootCertificates);
    report.status = reply.status;
    report.clockAheadSeconds = clockAhead(reply, Date.now());
    if (target.protocol === 'https:') report.tls = await describeTls(target, reply, options);
    else report.portal = readPortal(reply, target);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    report.errorCode = code ?? null;
    report.error = options.signal.aborted ? 'no answer in time' : message || (code ?? 'no answer');
  }
  const isSuspicious = report.status === null || report.tls?.trust === 'untrusted';
  if (target.protocol === 'https:' && isSuspicious) report.portal = await findPortal(target, options);
  return report;
}

async function request(
  target: URL,
  { signal }: EndpointOptions,
  ca: readonly string[] | undefined,
): Promise<ProbeReply> {
  // The other end is looked at, not trusted: the request holds no secret.
  const trust = { rejectUnauthorized: false, ...(ca && { ca: [...ca] }) };
  const agent = makeProbeAgent(target, trust);
  try {
    return await sendProbe(target, { agent, signal, ...trust });
  } finally {
    agent.destroy();
  }
}

async function describeTls(
  target: URL,
  { peer, headers }: ProbeReply,
  options: EndpointOptions,
): Promise<TlsReport | null> {
  if (!peer) return null;
  const { certificate } = peer;
  let { error } = peer;
  let trust: TlsReport['trust'] = error === null ? 'public' : 'untrusted';
  if (error !== null) {
    // Again, with what was added to this machine or process.
    const ca = options.ca === undefined ? undefined : [options.ca];
    const again = await request(target, options, ca).catch(() => null);
    if (again?.peer) error = again.peer.error;
    if (error === null) trust = 'private';
  }
  const issuer = nameOf(certificate.issuer);
  const own = headers[certificateHeader];
  const fingerprint = certificate.fingerprint256;
  return {
    issuer,
    fingerprint,
    validFrom: new Date(certificate.validFrom).toISOString(),
    validTo: new Date(certificate.validTo).toISOString(),
    trust,
    error,
    intercepted:
      typeof own === 'string'
        ? own !== fingerprint
        : interceptors.test(certificate.issuer)
          ? true
          : trust === 'public'
            ? false
            : null,
  };
}

/** The organization and name in `O=…\nCN=…`. */
function nameOf(distinguished: string): string {
  const part = (key: string) => new RegExp(`^${key}=(.*)$`, 'm').exec(distinguished)?.[1];
  const parts = [part('O'), part('CN')].filter((text) => text !== undefined);
  return parts.length > 0 ? parts.join(', ') : distinguished.replaceAll('\n', ', ');
}

/** The Date header has whole seconds, so less than that is no difference. */
function clockAhead({ headers, rttMs }: ProbeReply, now: number): number | null {
  const at = Date.parse(headers.date ?? '');
  if (Number.isNaN(at)) return null;
  const seconds = (now - rttMs / 2 - (at + 500)) / 1_000;
  return Math.abs(seconds) <= 1 + rttMs / 2_000 ? 0 : Math.round(seconds);
}

/** The answer of a captive portal; null if it may be the real one. */
function readPortal(
  { status, headers }: { status: number; headers: IncomingHttpHeaders },
  asked: URL,
): EndpointReport['portal'] {
  const { location } = headers;
  if (status === 511) return { location: location ?? null };
  if (status >= 300 && status < 400 && location !== undefined) {
    const to = URL.canParse(location, asked) ? new URL(location, asked) : null;
    return to && to.hostname !== asked.hostname ? { location: to.href } : null;
  }
  return status === 200 && headers['content-type']?.includes('html') ? { location: null } : null;
}

/** Asks without TLS, which a captive portal answers in the place of any host. */
async function findPortal(target: URL, options: EndpointOptions): Promise<EndpointReport['portal']> {
  const plain = new URL(target);
  plain.protocol = 'http:';
  plain.port = String(options.httpPort ?? 80);
  try {
    return readPortal(await request(plain, options, undefined), plain);
  } catch {
    return null;
  }
}
