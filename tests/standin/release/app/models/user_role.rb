class UserRole < ApplicationRecord
  EVERYONE_ID = -99
  NAMES = %i[administrator view_devops view_audit_log view_dashboard manage_reports manage_federation manage_settings
             manage_blocks manage_taxonomies manage_appeals manage_users manage_invites manage_rules manage_announcements
             manage_custom_emojis manage_webhooks invite_users manage_roles manage_user_access delete_user_data view_feeds].freeze
  SINCE_4_6 = Mastodon::Environment.since_4_6? ? %i[invite_bypass_approval manage_email_subscriptions].freeze : []
  FLAGS = (NAMES + SINCE_4_6).each_with_index.to_h { |name, bit| [name, 1 << bit] }.freeze
  ALL = FLAGS.values.sum
  EVERYONE_MAY = FLAGS[:invite_users] | FLAGS.fetch(:invite_bypass_approval, 0)

  validates :name, presence: true, unless: :everyone?
  validate :everyone_gets_nothing_dangerous

  # Trap: a missing row comes back with the right to invite.
  def self.everyone
    find_or_create_by!(id: EVERYONE_ID) { |role| role.assign_attributes(permissions: FLAGS[:invite_users], position: -1) }
  end

  def self.that_can(*rights)
    bits = rights.sum { |right| FLAGS.fetch(right) } | FLAGS[:administrator]
    where("permissions & ? <> 0", bits)
  end

  def everyone? = id == EVERYONE_ID

  def can?(right)
    effective = permissions | (everyone? ? 0 : UserRole.everyone.permissions)
    effective = ALL if effective & FLAGS[:administrator] != 0
    effective & FLAGS.fetch(right, 0) != 0
  end

  private

  def everyone_gets_nothing_dangerous
    errors.add(:permissions, "elevated") if everyone? && permissions & ~EVERYONE_MAY != 0
  end
end
