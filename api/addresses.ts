import { z } from 'zod';
import { formatAddress } from './host-port.ts';
import './validation-messages.ts';

export interface ListenAddress {
  host: string;
  port: number;
}

/** The setting of an address to listen on: HOST:PORT, with brackets around IPv6. `:PORT`, if allowed, means all addresses. */
export const listenAddress = (example: string, { isHostOptional = false } = {}) =>
  z
    .string()
    .regex(
      isHostOptional ? /^(\[[0-9a-fA-F:]+\]|[^:\s]*):\d{1,5}$/ : /^(\[[0-9a-fA-F:]+\]|[^:\s]+):\d{1,5}$/,
      `write HOST:PORT, for example ${example}`,
    )
    .transform((text): ListenAddress => {
      const colon = text.lastIndexOf(':');
      return { host: text.slice(0, colon).replace(/^\[|\]$/g, ''), port: Number(text.slice(colon + 1)) };
    })
    .refine(({ port }) => port <= 65535, 'a port is at most 65535');

export const listenUrl = ({ host, port }: ListenAddress, options: { tls?: boolean } = {}): string =>
  `${options.tls ? 'https' : 'http'}://${formatAddress(host, port)}`;

/** True if a program that listens on this host accepts connections on all addresses. */
export const isWildcardHost = (host: string): boolean => host === '0.0.0.0' || host === '::';

/** True if only programs on the same machine reach this host. Accepts IPv6 with and without brackets. */
export const isLoopbackHost = (host: string): boolean => /^(localhost|127\.[\d.]+|\[?::1\]?)$/.test(host);
