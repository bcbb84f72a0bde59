// Which methods are forwarded, and which of them change nothing: see src/http/methods.ts.

import http from 'node:http'
import { describe, expect, it } from 'vitest'
import { METHODS, isKnownMethod, isSafeMethod } from '../../src/http/methods.ts'

describe('methods', () => {
  it('are all that the parser reads, without CONNECT and TRACE', () => {
    const read = http.METHODS.filter((method) => method !== 'CONNECT' && method !== 'TRACE')
    expect([...METHODS].toSorted()).toEqual(read.toSorted())
    expect(['CONNECT', 'TRACE', 'BREW', 'get', ''].filter(isKnownMethod)).toEqual([])
  })

  it('[RFC 9110 §9.2.1] are safe where they are registered as such; anything else counts as unsafe', () => {
    const safe = ['GET', 'HEAD', 'OPTIONS', 'QUERY', 'PROPFIND', 'REPORT', 'SEARCH']
    expect([...METHODS, 'BREW', 'get'].filter(isSafeMethod)).toEqual(safe)
  })
})
