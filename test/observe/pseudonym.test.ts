import { hash } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { createPseudonyms } from '../../src/observe/pseudonym.ts'

const expected = (userId: string): string => hash('sha256', `user_id ${userId}`, 'base64url').slice(0, 22)

describe('a pseudonym', () => {
  it('is the same for one user each time, here and elsewhere', () => {
    const pseudonym = createPseudonyms()
    expect(pseudonym('ada')).toBe('jrVBEQnhwLfQkfkOkCdL6i')
    expect(pseudonym('ada')).toBe(createPseudonyms()('ada'))
    expect(pseudonym('bob')).not.toBe(pseudonym('ada'))
  })

  it('stays right for more users than are kept, and for long ones', () => {
    const pseudonym = createPseudonyms()
    const users = Array.from({ length: 7000 }, (_, i) => `user-${i}${i % 100 === 0 ? 'x'.repeat(300) : ''}`)
    for (const user of [...users, ...users.slice(-3000), ...users.slice(0, 10)]) {
      expect(pseudonym(user)).toBe(expected(user))
    }
  })
})
