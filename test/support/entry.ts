// Stored responses for tests of stores.

import { mayCode } from '../../src/cache/coding.ts'
import { type StoredResponse, entrySizeBytes, selectorOf } from '../../src/cache/entry.ts'
import type { HeaderList } from '../../src/core/context.ts'

export interface EntryParts {
  readonly key?: string
  readonly body?: string | Buffer
  readonly headers?: HeaderList
  readonly claims?: string
  readonly costMs?: number
  readonly timeline?: Buffer
  readonly tags?: readonly string[]
  readonly purgeSeq?: number
  readonly vary?: readonly string[]
  /** The fields of the request that it answered. */
  readonly request?: HeaderList
}

export function entryOf(parts: EntryParts = {}): StoredResponse {
  const headers = parts.headers ?? ['Content-Type', 'text/plain']
  const entry = {
    key: parts.key ?? 'http://gateway.test/',
    epoch: 'epoch',
    status: 200,
    headers,
    body: Buffer.from(parts.body ?? 'body'),
    ...selectorOf(parts.request ?? [], parts.claims ?? '', parts.vary ?? []),
    bornAtMs: 0,
    freshUntilMs: 60_000,
    originFreshUntilMs: 0,
    staleWhileRevalidateUntilMs: 60_000,
    staleIfErrorUntilMs: 60_000,
    sharedDespiteAuthorization: false,
    tags: parts.tags ?? [],
    purgeSeq: parts.purgeSeq ?? 0,
    costMs: parts.costMs ?? 0,
    timeline: parts.timeline ?? null,
    coded: mayCode({ status: 200, headers }) ? [] : null,
    uses: 0,
  }
  return { ...entry, sizeBytes: entrySizeBytes(entry) }
}
