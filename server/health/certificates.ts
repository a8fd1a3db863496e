import { once } from 'node:events';
import { connect } from 'node:tls';

const timeoutMs = 5_000;
const cachedMs = 3600_000;
const known = new Map<string, { at: number; end: Date | null }>();

/** When the certificate of an https URL ends, at most an hour old; null for http, and if it cannot be read. */
export async function certificateEnd(url: string): Promise<Date | null> {
  const { protocol, hostname, port } = new URL(url);
  if (protocol !== 'https:') return null;
  const cached = known.get(url);
  if (cached && Date.now() - cached.at < cachedMs) return cached.end;
  const host = hostname.replace(/^\[|\]$/g, '');
  // One that is not trusted here ends too.
  const socket = connect({ host, port: Number(port || 443), servername: host, rejectUnauthorized: false });
  try {
    await once(socket, 'secureConnect', { signal: AbortSignal.timeout(timeoutMs) });
    const end = new Date(socket.getPeerCertificate().valid_to);
    known.set(url, { at: Date.now(), end });
    return end;
  } catch {
    return null;
  } finally {
    socket.destroy();
  }
}
