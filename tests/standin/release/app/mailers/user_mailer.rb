class UserMailer < ActionMailer::Base
  def confirmation(user)
    link = auth_confirmation_url(confirmation_token: user.confirmation_token)
    send_to(user.unconfirmed_email.presence || user.email, "Confirm your address for #{Mastodon::Environment.web_domain}", "Open this link to confirm your address:\n\n#{link}\n")
  end

  def reset_password(user)
    token = SecureRandom.urlsafe_base64(20)
    user.update!(reset_password_token: User.digest(token), reset_password_sent_at: Time.now.utc)
    send_to(user.email, "Reset your password", "Open this link to set a new password:\n\n#{edit_user_password_url(reset_password_token: token)}\n")
  end

  def approved(user)
    send_to(user.email, "Your account was approved", "You can sign in now: #{new_user_session_url}\n")
  end

  # To those who may decide about it.
  def pending(user)
    reviewers = User.those_who_can(:manage_users).where(disabled: false).pluck(:email)
    send_to(reviewers, "A new account waits for review", "#{user.account.username} <#{user.email}> waits for review.\n") if reviewers.any?
  end

  private

  def send_to(address, subject, text)
    headers = { "Reply-To" => ENV["SMTP_REPLY_TO"].presence, "Return-Path" => ENV["SMTP_RETURN_PATH"].presence }.compact
    mail(to: address, subject:, body: "#{text}\n-- \nSent by a stand-in release, not by Mastodon.\n", **headers)
  end
end
