// Who stands in front of us, and what we tell those behind (RFC 7239; RFC 9110 §7.6.3). This file alone knows the
// grammar of X-Forwarded-For and Forwarded. A chain is believed only as far as trusted proxies wrote it, so it is read
// from the right and never past the first address that is not trusted, or that cannot be read.
//
// Of the two families one is read: X-Forwarded-For, or Forwarded where there is none. The other may be the client's own
// words, passed on by a proxy that knows only one, so it is dropped and written anew from the family that was read.

import { BlockList, SocketAddress, isIP, isIPv4, isIPv6 } from 'node:net'
import type { HeaderList, RequestContext } from '../core/context.ts'
import { getCombined, getHeader, isToken, listMembers } from './headers.ts'

/** A range of addresses. A single address has the full prefix. */
export interface Cidr {
  readonly family: 'ipv4' | 'ipv6'
  readonly address: string
  /** Bits, 0-32 or 0-128. */
  readonly prefix: number
}

/** `10.0.0.0/8`, `2001:db8::/32` or a single address; null for anything else. IPv4-mapped IPv6 is refused:
 *  `::ffff:10.0.0.0/8` looks like the private network and is `::/8`, every IPv4 address in it. Zones are refused too. */
export function parseCidr(text: string): Cidr | null {
  const match = /^([0-9A-Fa-f.:]+)(?:\/(0|[1-9]\d{0,2}))?$/.exec(text)
  const address = match?.[1] ?? ''
  const version = isIP(address)
  if (version === 0 || (version === 6 && isIPv4(unmapAddress(address)))) return null
  const bits = version === 4 ? 32 : 128
  const prefix = match?.[2] === undefined ? bits : Number(match[2])
  return prefix > bits ? null : { family: version === 4 ? 'ipv4' : 'ipv6', address, prefix }
}

/** An address as all rules compare it: IPv4-mapped IPv6 in any spelling as IPv4, other IPv6 in its canonical form
 *  (RFC 5952) without zone. What is no address comes back as it is. */
export function unmapAddress(address: string): string {
  if (!address.includes(':')) return address
  const dotted = address.startsWith('::ffff:') ? address.slice(7) : ''
  if (isIPv4(dotted)) return dotted
  if (!isIPv6(address)) return address
  const canonical = new SocketAddress({ address, family: 'ipv6' }).address
  const mapped = canonical.startsWith('::ffff:') ? canonical.slice(7) : ''
  return isIPv4(mapped) ? mapped : canonical
}

/** Says whether an address is in one of the ranges. With no ranges nobody is, at no cost. */
export function compileTrust(cidrs: readonly Cidr[]): (address: string) => boolean {
  if (cidrs.length === 0) return () => false
  // One list per family: in a shared BlockList `::/0` holds every IPv4 address as well.
  const lists = { ipv4: new BlockList(), ipv6: new BlockList() }
  for (const { family, address, prefix } of cidrs) lists[family].addSubnet(address, prefix, family)
  return (address) => {
    const plain = unmapAddress(address)
    return plain.includes(':') ? lists.ipv6.check(plain, 'ipv6') : lists.ipv4.check(plain, 'ipv4')
  }
}

/** The client's address: the peer itself, or behind trusted proxies the first address from the right that is not one. */
export function resolveClient(
  peerAddress: string,
  headers: HeaderList,
  isTrusted: (address: string) => boolean,
): string {
  const peer = unmapAddress(peerAddress)
  return isTrusted(peer) ? (walkChain(headers, isTrusted).at(-1) ?? peer) : peer
}

type ForwardedRequest = Pick<
  RequestContext,
  'peerAddress' | 'peerIsTrusted' | 'headers' | 'host' | 'scheme' | 'version'
>

/** The fields that tell an upstream where a request came from, flat. They replace FORWARDING_FIELDS of the request.
 *  viaToken: our name in Via, a token. Only a trusted peer's chains, scheme and host are carried on; its Via always is. */
export function forwardingFields(request: ForwardedRequest, viaToken: string): string[] {
  const { headers, host, scheme } = request
  const peer = unmapAddress(request.peerAddress)
  const hostPair = host === '' ? '' : `;host=${isToken(host) ? host : `"${host}"`}`
  const hop = `for=${formatNode(peer)}${hostPair};proto=${scheme}`
  const via = append(getCombined(headers, 'via') ?? '', `${request.version} ${viaToken}`)
  if (!request.peerIsTrusted) return fieldsOf(peer, scheme, host, hop, via)
  const chain = walkChain(headers, () => true).toReversed()
  const received = getCombined(headers, 'x-forwarded-for')
  const forwarded =
    (received === null ? getCombined(headers, 'forwarded') : null) ??
    chain.map((address) => `for=${formatNode(address)}`).join(', ')
  return fieldsOf(
    append(received ?? chain.join(', '), peer),
    getHeader(headers, 'x-forwarded-proto') ?? scheme,
    getHeader(headers, 'x-forwarded-host') ?? host,
    append(forwarded, hop),
    via,
  )
}

function fieldsOf(forwardedFor: string, proto: string, host: string, forwarded: string, via: string): string[] {
  const fields = ['X-Forwarded-For', forwardedFor, 'X-Forwarded-Proto', proto]
  if (host !== '') fields.push('X-Forwarded-Host', host)
  fields.push('Forwarded', forwarded, 'Via', via)
  return fields
}

/** True when the request has been through us before: a Via member names viaToken, in any case. */
export function hasOwnVia(headers: HeaderList, viaToken: string): boolean {
  const via = getCombined(headers, 'via')
  if (via === null) return false
  const own = viaToken.toLowerCase()
  return listMembers(via.toLowerCase()).some((member) => member.split(/[\t ]+/)[1] === own)
}

/** Fields that the gateway writes itself, so a received one is never copied. Lower case. */
export const FORWARDING_FIELDS: ReadonlySet<string> = new Set([
  'x-forwarded-for',
  'x-forwarded-proto',
  'x-forwarded-host',
  'forwarded',
  'via',
])

/** Claims of where a client is. Lower case. */
export const CLIENT_CLAIMS: ReadonlySet<string> = new Set([
  'x-forwarded-for',
  'forwarded',
  'forwarded-for',
  'x-forwarded',
  'x-original-forwarded-for',
  'x-real-ip',
  'x-client-ip',
  'client-ip',
  'true-client-ip',
  'x-cluster-client-ip',
  'x-remote-ip',
  'x-remote-addr',
  'x-original-remote-addr',
  'x-originating-ip',
  'x-envoy-external-address',
  'x-appengine-user-ip',
  'x-azure-clientip',
  'x-azure-socketip',
  'cf-connecting-ip',
  'cf-connecting-ipv6',
  'cf-pseudo-ipv4',
  'fastly-client-ip',
  'fly-client-ip',
  'wl-proxy-client-ip',
])

/** Claims of what is asked for. */
const TARGET_CLAIMS: ReadonlySet<string> = new Set([
  // Which resource and host are meant.
  'x-original-url',
  'x-original-uri',
  'x-original-path',
  'x-original-host',
  'x-original-method',
  'x-rewrite-url',
  'x-override-url',
  'x-replaced-path',
  'x-script-name',
  'x-envoy-original-path',
  'x-envoy-original-host',
  'x-host',
  'x-host-override',
  'x-http-host-override',
  'x-backend-host',
  // What Next.js tells itself of the route, and of middleware that need not be asked.
  'x-invoke-error',
  'x-invoke-output',
  'x-invoke-path',
  'x-invoke-query',
  'x-invoke-status',
  'x-matched-path',
  'x-middleware-subrequest',
  'x-now-route-matches',
  // Which method and scheme are meant.
  'x-http-method-override',
  'x-http-method',
  'x-method-override',
  'x-scheme',
  'x-url-scheme',
  'front-end-https',
])

/** Claims that only a proxy may make: dropped when the peer is not trusted, because backends believe them. Holds every
 *  `x-forwarded-*`, which no list could, hence no Set. Names in lower case. */
export const UNTRUSTED_FIELDS: { has(lowerName: string): boolean } = {
  has: (lowerName) =>
    lowerName.startsWith('x-forwarded-') || CLIENT_CLAIMS.has(lowerName) || TARGET_CLAIMS.has(lowerName),
}

const MAX_HOPS = 20

/** Addresses of the received chain from the right, at most MAX_HOPS: up to the first that `goesOn` refuses, that one
 *  included, or to the first that cannot be read. */
function walkChain(headers: HeaderList, goesOn: (address: string) => boolean): string[] {
  const forwardedFor = getCombined(headers, 'x-forwarded-for')
  const chain = forwardedFor ?? getCombined(headers, 'forwarded') ?? ''
  const addresses: string[] = []
  let end = chain.length
  while (end > 0 && addresses.length < MAX_HOPS) {
    const start = lastMember(chain, end)
    const member = chain.slice(start, end).trim()
    end = start - 1
    if (member === '') continue
    const node = forwardedFor === null ? parseForwardedFor(member) : member
    const address = node === null ? null : parseNode(node)
    if (address === null) break
    addresses.push(address)
    if (!goesOn(address)) break
  }
  return addresses
}

/** Where the last list member before `end` begins. Looked for from the right, so that a quote which a client left open
 *  further left cannot swallow what a trusted proxy wrote behind it. */
function lastMember(chain: string, end: number): number {
  let quoted = false
  for (let i = end - 1; i >= 0; i--) {
    if (chain[i] === '"' && chain[i - 1] !== '\\') quoted = !quoted
    else if (chain[i] === ',' && !quoted) return i + 1
  }
  return 0
}

const PAIR = /[\t ]*([^\s=;,"]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]+))[\t ]*(?:;|$)/gy

/** The node of a forwarded-element (RFC 7239 §4), unquoted; null when there is no `for`, or more than one, or no grammar. */
function parseForwardedFor(element: string): string | null {
  let node: string | null = null
  let end = 0
  for (const match of element.matchAll(PAIR)) {
    end = match.index + match[0].length
    if (match[1]?.toLowerCase() !== 'for') continue
    if (node !== null) return null
    node = match[2] ?? match[3] ?? ''
  }
  return end === element.length ? node : null
}

/** An address without port and brackets; null for names, obfuscated ids, zones and anything else that is no address. */
function parseNode(node: string): string | null {
  const match = /^(?:\[([^\]%]+)\]|([\d.]+))(?::(?:\d{1,5}|_[\w.-]+))?$/.exec(node)
  const address = match?.[1] ?? match?.[2] ?? node
  if (isIP(address) === 0 || address.includes('%')) return null
  return unmapAddress(address)
}

/** RFC 7239 §6: IPv6 goes in brackets, and with them in quotes. */
const formatNode = (address: string): string => (address.includes(':') ? `"[${address}]"` : address)

const append = (list: string, member: string): string => (list === '' ? member : `${list}, ${member}`)
