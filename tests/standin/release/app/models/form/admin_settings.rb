# The form behind the administration pages. It takes strings, as a browser sends them: "1" and "0" for
# booleans, "14" for a number. Trap: `true` is not "1" and would be stored as false.
class Form::AdminSettings
  include ActiveModel::Model

  BOOLEAN_KEYS = Setting::DEFAULTS.select { |_, value| [true, false].include?(value) }.keys.map(&:to_sym).freeze
  INTEGER_KEYS = %i[media_cache_retention_period content_cache_retention_period backups_retention_period min_age].freeze
  KEYS = (Setting::DEFAULTS.keys.map(&:to_sym) - %i[email_subscriptions reserved_usernames]).freeze
  # Written at every save, asked for or not, as upstream does.
  ALWAYS = %i[media_cache_retention_period content_cache_retention_period backups_retention_period status_page_url].freeze

  validates :registrations_mode, inclusion: { in: %w[open approved none] }, if: -> { given?(:registrations_mode) }
  validates :site_short_description, length: { maximum: 200 }, if: -> { given?(:site_short_description) }
  validates :landing_page, inclusion: { in: %w[trends overview local_feed about] }, if: -> { given?(:landing_page) }
  validate :contact_exists, if: -> { given?(:site_contact_username) || given?(:site_contact_email) }

  def initialize(attributes = {})
    @given = {}
    attributes.each { |key, value| public_send(:"#{key}=", value) }
  end

  KEYS.each do |key|
    define_method(key) { @given.fetch(key) { Setting[key] } }
    define_method(:"#{key}=") { |value| @given[key] = typed(key, value) }
  end

  def save
    return false unless valid?

    (@given.keys | ALWAYS).each { |key| Setting[key] = public_send(key) }
    true
  end

  private

  def given?(key) = @given.key?(key)

  def typed(key, value)
    return value == "1" if BOOLEAN_KEYS.include?(key)
    return value.presence&.to_i if INTEGER_KEYS.include?(key)

    value
  end

  def contact_exists
    errors.add(:site_contact_email, "can't be blank") if site_contact_email.blank?
    errors.add(:site_contact_username, "is no account here") unless Account.find_local(site_contact_username)
  end
end
