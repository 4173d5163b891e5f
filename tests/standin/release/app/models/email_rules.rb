require "resolv"

# Which addresses may sign up. Trap: a valid invite skips the lists (but not the look into DNS).
class EmailRules < ActiveModel::Validator
  def validate(user)
    domain = user.email.to_s.split("@").last
    return if domain.nil?

    listed = self.class.allowlist&.match?(user.email)
    if !user.valid_invitation? && (listed == false || EmailDomainBlock.exists?(domain:))
      user.errors.add(:email, :blocked, message: "domain is not allowed")
    elsif !listed && !reachable?(domain)
      user.errors.add(:email, :unreachable, message: "does not seem to exist")
    end
  end

  # Names separated by pipes; subdomains are included.
  def self.allowlist
    list = ENV["EMAIL_DOMAIN_ALLOWLIST"].presence || ENV["EMAIL_DOMAIN_WHITELIST"].presence
    list && /@(.+\.)?(#{list.split('|').map { |name| Regexp.escape(name) }.join('|')})\z/i
  end

  private

  # A domain that receives no mail is a typing error or a fake.
  def reachable?(domain)
    kinds = [Resolv::DNS::Resource::IN::MX, Resolv::DNS::Resource::IN::A, Resolv::DNS::Resource::IN::AAAA]
    Resolv::DNS.open do |dns|
      dns.timeouts = 5
      kinds.any? { |kind| dns.getresources(domain, kind).any? }
    end
  end
end
