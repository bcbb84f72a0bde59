import { describe, expect, it } from 'vitest'
import { remember } from '../../src/core/remember.ts'

/** A function that remembers, and what it has computed. */
function counted(maxTexts: number, maxChars?: number) {
  const computed: string[] = []
  const upper = remember(
    (text) => {
      computed.push(text)
      return text === '' ? null : text.toUpperCase()
    },
    maxTexts,
    maxChars,
  )
  return { computed, upper }
}

describe('a function that remembers', () => {
  it('answers the same, and computes it once', () => {
    const { computed, upper } = counted(10)
    const texts = ['a', 'b', 'a', 'caf\xe9', '', 'a', 'caf\xe9', '']
    expect(texts.map(upper)).toEqual(['A', 'B', 'A', 'CAF\xc9', null, 'A', 'CAF\xc9', null])
    expect(computed).toEqual(['a', 'b', 'caf\xe9', ''])
  })

  it('forgets what has not come for a while, and keeps what is in use', () => {
    const { computed, upper } = counted(100)
    for (let i = 0; i < 1000; i++) {
      upper('in use')
      upper(`${i}`)
    }
    expect(computed).toHaveLength(1001)
    upper('0')
    upper('999')
    expect(computed.slice(1001)).toEqual(['0'])
  })

  it('does not remember what is too long', () => {
    const { computed, upper } = counted(10, 5)
    for (let i = 0; i < 3; i++) expect(upper('123456')).toBe('123456')
    expect(computed).toHaveLength(3)
  })
})
